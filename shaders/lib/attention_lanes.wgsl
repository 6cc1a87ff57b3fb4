// Rows in registers, for the software-device kernels of attention.
//
// One workgroup is one SIMD vector of LANES invocations; each lane owns three rows of the operand that its kernel is about,
// the rows of a tile, and all that is computed for them: sums over a row, a softmax among them, need nothing from another
// lane. The rows of the other operand are walked over in blocks of DEPTH, whose addresses are equal for all lanes: such a
// device loads them as one number each. Two loops take turns, and both are products of a panel as in gemm_panel.wgsl:
//
//             4 * CELLS                     DEPTH           Weights of a row: rows of the tile, as named matrices of four
//            +---------+                  +-------+         elements (a slab), times one row of the block an iteration; they
//   3*LANES  |  slab   |         3*LANES  |weights|         go to scratch memory, since a loop cannot write named values.
//            +---------+                  +-------+
//   +-----+  +---------+         +-----+  +-------+         Sums of weighted rows: weights, as named matrices of four
//   |block|  | scores  |         |block|  | sums  |         positions, times four elements of every row of the block an
//   +-----+  +---------+         +-----+  +-------+         iteration. Between blocks the sums live in scratch memory.
//
// Sums that a loop carries in registers instead are what such a device is slow at: it writes every one of them through the
// mask of the lanes that are still in the loop. Named matrices that no loop writes cost a load from the stack.
//
// E is up to 128. Knobs (header): CELLS, LANES, DEPTH (32 or 48), RESULTS. Lines with $c are repeated for all CELLS, those with
// $w for a block's groups of four positions. Scratch memory: `put`, `fetch`, `put_sums`, `fetch_sums`, of the lane's own slots
// only, hence without barriers.

// One element of each row of a lane.
alias Rows = vec3<f32>;
// Four elements of each row of a lane, or its weights of four positions.
alias Quad = mat4x3<f32>;

struct Slab {
    c$c: Quad,
}

// Weights of DEPTH positions.
struct Weights {
    w$w: Quad,
}

const Q = 0u;
const K = 1u;
const V = 2u;
const DY = 3u;

// No binding has 2^27 cells (2 GiB): the mask only tells the driver's compiler that no address has a sign, which spares it
// half of the comparison with the bounds.
fn load(operand: u32, at: u32) -> vec4<f32> {
    let cell = at & 0x07ffffffu;
    if operand == Q {
        return unpacked(q[cell]);
    }
    if operand == K {
        return unpacked(k[cell]);
    }
    if operand == V {
        return unpacked(load_v(cell));
    }
    return unpacked(load_dy(cell));
}

fn three_rows(base: u32, stride: u32, rows: vec3<u32>, end: u32) -> vec3<u32> {
    return base + stride * min(rows, vec3<u32>(end - 1u));
}

// One cell of the rows of a lane, times a factor.
fn load_quad(operand: u32, at: vec3<u32>, factor: f32) -> Quad {
    return factor * transpose(mat3x4<f32>(load(operand, at.x), load(operand, at.y), load(operand, at.z)));
}

// The rows of a lane, times a factor.
fn load_slab(operand: u32, at: vec3<u32>, factor: f32) -> Slab {
    var slab: Slab;
    slab.c$c = load_quad(operand, at + $c, factor);
    return slab;
}

// Products of the rows of a lane with the row at `at`.
fn dots(slab: Slab, operand: u32, at: u32) -> Rows {
    var sums = Rows();
    sums += slab.c$c * load(operand, at + $c);
    return sums;
}

// The weights of a block out of scratch memory; zero from position `count` on.
fn load_weights(lane: u32, count: u32) -> Weights {
    var weights: Weights;
    weights.w$w = four_weights(lane, 4 * $w, count);
    return weights;
}

fn four_weights(lane: u32, first: u32, count: u32) -> Quad {
    return Quad(
        select(Rows(), fetch(first, lane), first < count),
        select(Rows(), fetch(first + 1u, lane), first + 1u < count),
        select(Rows(), fetch(first + 2u, lane), first + 2u < count),
        select(Rows(), fetch(first + 3u, lane), first + 3u < count),
    );
}

// A block of rows of an operand: those from `first` on, of rows that begin at `base`; beyond `end` the last one repeats.
struct Block {
    operand: u32,
    base: u32,
    stride: u32,
    first: u32,
    end: u32,
}

// One cell of four rows of a block; column i is element i of all four.
fn load_four(block: Block, row: u32, cell: u32) -> mat4x4<f32> {
    let rows = min(block.first + row + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(block.end - 1u));
    let at = block.base + block.stride * rows + cell;
    return transpose(mat4x4<f32>(
        load(block.operand, at.x),
        load(block.operand, at.y),
        load(block.operand, at.z),
        load(block.operand, at.w),
    ));
}

fn scaled(quad: Quad, factor: Rows) -> Quad {
    return Quad(quad[0] * factor, quad[1] * factor, quad[2] * factor, quad[3] * factor);
}

// sums = weights * block + factor * sums, without the latter for the first block.
fn accumulate(result: u32, lane: u32, weights: Weights, block: Block, factor: Rows, is_first: bool) {
    for (var cell = 0u; cell < CELLS; cell++) {
        var sums = Quad();
        sums += weights.w$w * load_four(block, 4 * $w, cell);
        let slot = CELLS * result + cell;
        if !is_first {
            sums += scaled(fetch_sums(slot, lane), factor);
        }
        put_sums(slot, lane, sums);
    }
}

// Gives every cell of the rows that exist, times a factor, to the hook `store_cell`.
fn store_sums(result: u32, lane: u32, at: vec3<u32>, exists: vec3<bool>, factor: Rows) {
    for (var cell = 0u; cell < CELLS; cell++) {
        let rows = transpose(scaled(fetch_sums(CELLS * result + cell, lane), factor));
        if exists.x {
            store_cell(result, at.x + cell, packed(rows[0]));
        }
        if exists.y {
            store_cell(result, at.y + cell, packed(rows[1]));
        }
        if exists.z {
            store_cell(result, at.z + cell, packed(rows[2]));
        }
    }
}
