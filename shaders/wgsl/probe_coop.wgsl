// What eight independent chains of products of tiles end in: a measure of cooperative matrices, and of nothing else.
//
// A subgroup holds four tiles of a left operand, two of a right one and eight of sums, and multiplies all pairs in a round:
//
//     flops = subgroups * rounds * 8 * 2 * EDGE * EDGE * EDGE
//
// Operands are 0.5, which every invocation writes first: a device is faster on zeros. Nobody waits for the others' writes, as
// nothing but time is measured. Sums are stored where a parameter says so, which is never, but no compiler knows.
//
// Bindings: 0 Params, 1 operands, 2 out. Knobs (header): LANES, the size of a workgroup, and EDGE. Workgroup memory: none.

struct Params {
    rounds: u32,
    store: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> operands: array<f16>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

fn left(tile: u32) -> Left {
    return coopLoadT<Left>(&operands[tile * EDGE * EDGE], EDGE);
}

fn right(tile: u32) -> Right {
    return coopLoadT<Right>(&operands[tile * EDGE * EDGE], EDGE);
}

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) thread: u32) {
    for (var at = thread; at < 6u * EDGE * EDGE; at += LANES) {
        operands[at] = 0.5h;
    }
    storageBarrier();
    let a0 = left(0u);
    let a1 = left(1u);
    let a2 = left(2u);
    let a3 = left(3u);
    let b0 = right(4u);
    let b1 = right(5u);
    var c00 = Sums();
    var c01 = Sums();
    var c10 = Sums();
    var c11 = Sums();
    var c20 = Sums();
    var c21 = Sums();
    var c30 = Sums();
    var c31 = Sums();
    for (var round = 0u; round < p.rounds; round++) {
        c00 = coopMultiplyAdd(a0, b0, c00);
        c01 = coopMultiplyAdd(a0, b1, c01);
        c10 = coopMultiplyAdd(a1, b0, c10);
        c11 = coopMultiplyAdd(a1, b1, c11);
        c20 = coopMultiplyAdd(a2, b0, c20);
        c21 = coopMultiplyAdd(a2, b1, c21);
        c30 = coopMultiplyAdd(a3, b0, c30);
        c31 = coopMultiplyAdd(a3, b1, c31);
    }
    for (var left = p.store != 0u; left; left = false) {
        coopStoreT(c00, &out[0], EDGE);
        coopStoreT(c01, &out[EDGE * EDGE], EDGE);
        coopStoreT(c10, &out[2u * EDGE * EDGE], EDGE);
        coopStoreT(c11, &out[3u * EDGE * EDGE], EDGE);
        coopStoreT(c20, &out[4u * EDGE * EDGE], EDGE);
        coopStoreT(c21, &out[5u * EDGE * EDGE], EDGE);
        coopStoreT(c30, &out[6u * EDGE * EDGE], EDGE);
        coopStoreT(c31, &out[7u * EDGE * EDGE], EDGE);
    }
}
