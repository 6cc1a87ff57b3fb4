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
// What is done to an operand is in attention_lanes_operand.wgsl. E is up to 128. Knobs (header): CELLS, LANES, DEPTH (a
// multiple of four), RESULTS. Lines with $c are repeated for all CELLS, those with $w for a block's groups of four positions.
// Scratch memory: `put`, `fetch`, `put_sums`, `fetch_sums`, of the lane's own slots only, hence without barriers.

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

fn load_q(at: u32) -> Cell {
    return q[at];
}

fn load_k(at: u32) -> Cell {
    return k[at];
}

fn three_rows(base: u32, stride: u32, rows: vec3<u32>, end: u32) -> vec3<u32> {
    return base + stride * min(rows, vec3<u32>(end - 1u));
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
    base: u32,
    stride: u32,
    first: u32,
    end: u32,
}

fn scaled(quad: Quad, factor: Rows) -> Quad {
    return Quad(quad[0] * factor, quad[1] * factor, quad[2] * factor, quad[3] * factor);
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
