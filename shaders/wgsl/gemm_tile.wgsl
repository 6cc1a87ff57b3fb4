// GEMM for GPUs: C[b, m, n] = epilogue(alpha * sum_k A[b, m, k] * B[b, k, n]), all f32, sums in f32 in the order of k.
//
//            n ->                  One workgroup of 256 threads computes a SIDE x SIDE tile of C: 128 where C has many tiles,
//         +--------+               else 64. Thread (x, y) holds the 4 x 4 block at row 4y, column 4x in registers, and with
//       k | wg_b   |  DEPTH        128 also those 64 rows below, 64 columns beside it, and both. For each DEPTH steps of k,
//         +--------+               threads 0 .. 127 copy a SIDE x DEPTH slice of A to workgroup memory, threads 128 .. 255 a
//   +---+ +--------+               DEPTH x SIDE slice of B: one 4 x 4 block a thread, which it loads while the slice before
// m |   | |  SIDE  |               is multiplied. Both slices lie k-major, so that a thread reads four rows of A and four
//   +---+ +--------+               columns of B as one vec4 each.
//  wg_a DEPTH
//
// Slot of block j in line k: BLOCKS * k + (j xor k/4): blocks of one j stored by neighbouring threads at k, k + 4, .. fall into
// different banks.
//
// Bindings: 0 Params, 1 A, 2 B, 3 C, 4.. the hook's. Knobs (header): SIDE, A_TRANSPOSED, B_TRANSPOSED, ACCUMULATE, CELL.
// Hooks: load_a, load_b, epilogue. Workgroup memory: 2 slices * 2048 * 4 B = 16 KiB. No subgroup operations.

const DEPTH = 2048u / SIDE;
const BLOCKS = SIDE / 4u;

var<workgroup> wg_a: array<vec4<f32>, 512>;
var<workgroup> wg_b: array<vec4<f32>, 512>;

fn wg_slot(k: u32, block: u32) -> u32 {
    return BLOCKS * k + (block ^ (k / 4u));
}

// The block that a thread copies: of B or of A, the first step of k of it, and its number along the other side. Consecutive
// threads follow the direction in which memory runs.
struct Copied {
    of_b: bool,
    k: u32,
    block: u32,
}

fn load_block(place: Place, copied: Copied, k0: u32) -> mat4x4<f32> {
    let k = k0 + copied.k;
    if copied.of_b {
        return mask_b_block(load_b_block(place.b, k, SIDE * place.column_tile + 4u * copied.block), k);
    }
    return transpose(mask_a_block(load_a_block(place.a, SIDE * place.row_tile + 4u * copied.block, k), k));
}

fn publish(copied: Copied, block: mat4x4<f32>) {
    let slot0 = wg_slot(copied.k, copied.block);
    let slot1 = wg_slot(copied.k + 1u, copied.block);
    let slot2 = wg_slot(copied.k + 2u, copied.block);
    let slot3 = wg_slot(copied.k + 3u, copied.block);
    if copied.of_b {
        wg_b[slot0] = block[0];
        wg_b[slot1] = block[1];
        wg_b[slot2] = block[2];
        wg_b[slot3] = block[3];
    } else {
        wg_a[slot0] = block[0];
        wg_a[slot1] = block[1];
        wg_a[slot2] = block[2];
        wg_a[slot3] = block[3];
    }
}

// Row i of the result is that of the sums and element i of a times b.
fn added(sums: mat4x4<f32>, a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(sums[0] + a.x * b, sums[1] + a.y * b, sums[2] + a.z * b, sums[3] + a.w * b);
}

fn store_row(place: Place, row: u32, column: u32, sum: vec4<f32>) {
    if row < p.m && column < p.n {
        let last = last_below(column, p.n);
        let c_at = place.c + row * p.c_row + column / CELL;
        var value = p.alpha * sum;
        if ACCUMULATE {
            value += load_c(c_at, last);
        }
        store_c(c_at, last, finish_c(place, row, column, last, value));
    }
}

fn store_block(place: Place, row: u32, column: u32, sums: mat4x4<f32>) {
    store_row(place, row, column, sums[0]);
    store_row(place, row + 1u, column, sums[1]);
    store_row(place, row + 2u, column, sums[2]);
    store_row(place, row + 3u, column, sums[3]);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let id = group.x + group.y * p.grid_x;
    if id >= p.tiles {
        return;
    }
    let place = place_of(id);
    let x = thread % 16u;
    let y = thread / 16u;
    let of_b = thread >= 128u;
    let number = thread % 128u;
    let along_k = select(!A_TRANSPOSED, B_TRANSPOSED, of_b);
    let copied = Copied(
        of_b,
        4u * select(number / BLOCKS, number % (DEPTH / 4u), along_k),
        select(number % BLOCKS, number / (DEPTH / 4u), along_k),
    );

    // Blocks below each other differ in the first digit, blocks beside each other in the second one.
    var sums00 = mat4x4<f32>();
    var sums01 = mat4x4<f32>();
    var sums10 = mat4x4<f32>();
    var sums11 = mat4x4<f32>();
    var next = load_block(place, copied, 0u);
    for (var k0 = 0u; k0 < p.k; k0 += DEPTH) {
        publish(copied, next);
        workgroupBarrier();
        if k0 + DEPTH < p.k {
            next = load_block(place, copied, k0 + DEPTH);
        }
        for (var line = 0u; line < DEPTH; line++) {
            let a0 = wg_a[wg_slot(line, y)];
            let b0 = wg_b[wg_slot(line, x)];
            sums00 = added(sums00, a0, b0);
            if SIDE == 128u {
                let a1 = wg_a[wg_slot(line, y + 16u)];
                let b1 = wg_b[wg_slot(line, x + 16u)];
                sums01 = added(sums01, a0, b1);
                sums10 = added(sums10, a1, b0);
                sums11 = added(sums11, a1, b1);
            }
        }
        workgroupBarrier();
    }

    let row = SIDE * place.row_tile + 4u * y;
    let column = SIDE * place.column_tile + 4u * x;
    store_block(place, row, column, sums00);
    if SIDE == 128u {
        store_block(place, row, column + 64u, sums01);
        store_block(place, row + 64u, column, sums10);
        store_block(place, row + 64u, column + 64u, sums11);
    }
}
