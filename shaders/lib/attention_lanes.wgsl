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
// E is up to 128; cells beyond it stay unused. Knobs (header): CELLS, LANES, DEPTH (32 or 48), RESULTS. Scratch memory:
// `put`, `fetch`, `put_sums`, `fetch_sums`, of the lane's own slots only, hence without barriers.

// One element of each row of a lane.
alias Rows = vec3<f32>;
// Four elements of each row of a lane, or its weights of four positions.
alias Quad = mat4x3<f32>;

struct Slab {
    c0: Quad,
    c1: Quad,
    c2: Quad,
    c3: Quad,
    c4: Quad,
    c5: Quad,
    c6: Quad,
    c7: Quad,
    c8: Quad,
    c9: Quad,
    c10: Quad,
    c11: Quad,
    c12: Quad,
    c13: Quad,
    c14: Quad,
    c15: Quad,
    c16: Quad,
    c17: Quad,
    c18: Quad,
    c19: Quad,
    c20: Quad,
    c21: Quad,
    c22: Quad,
    c23: Quad,
    c24: Quad,
    c25: Quad,
    c26: Quad,
    c27: Quad,
    c28: Quad,
    c29: Quad,
    c30: Quad,
    c31: Quad,
}

// Weights of DEPTH positions; the last four matrices stay unused where that is 32.
struct Weights {
    w0: Quad,
    w1: Quad,
    w2: Quad,
    w3: Quad,
    w4: Quad,
    w5: Quad,
    w6: Quad,
    w7: Quad,
    w8: Quad,
    w9: Quad,
    w10: Quad,
    w11: Quad,
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
    slab.c0 = load_quad(operand, at, factor);
    if CELLS > 1u {
        slab.c1 = load_quad(operand, at + 1u, factor);
    }
    if CELLS > 2u {
        slab.c2 = load_quad(operand, at + 2u, factor);
    }
    if CELLS > 3u {
        slab.c3 = load_quad(operand, at + 3u, factor);
    }
    if CELLS > 4u {
        slab.c4 = load_quad(operand, at + 4u, factor);
    }
    if CELLS > 5u {
        slab.c5 = load_quad(operand, at + 5u, factor);
    }
    if CELLS > 6u {
        slab.c6 = load_quad(operand, at + 6u, factor);
    }
    if CELLS > 7u {
        slab.c7 = load_quad(operand, at + 7u, factor);
    }
    if CELLS > 8u {
        slab.c8 = load_quad(operand, at + 8u, factor);
    }
    if CELLS > 9u {
        slab.c9 = load_quad(operand, at + 9u, factor);
    }
    if CELLS > 10u {
        slab.c10 = load_quad(operand, at + 10u, factor);
    }
    if CELLS > 11u {
        slab.c11 = load_quad(operand, at + 11u, factor);
    }
    if CELLS > 12u {
        slab.c12 = load_quad(operand, at + 12u, factor);
    }
    if CELLS > 13u {
        slab.c13 = load_quad(operand, at + 13u, factor);
    }
    if CELLS > 14u {
        slab.c14 = load_quad(operand, at + 14u, factor);
    }
    if CELLS > 15u {
        slab.c15 = load_quad(operand, at + 15u, factor);
    }
    if CELLS > 16u {
        slab.c16 = load_quad(operand, at + 16u, factor);
    }
    if CELLS > 17u {
        slab.c17 = load_quad(operand, at + 17u, factor);
    }
    if CELLS > 18u {
        slab.c18 = load_quad(operand, at + 18u, factor);
    }
    if CELLS > 19u {
        slab.c19 = load_quad(operand, at + 19u, factor);
    }
    if CELLS > 20u {
        slab.c20 = load_quad(operand, at + 20u, factor);
    }
    if CELLS > 21u {
        slab.c21 = load_quad(operand, at + 21u, factor);
    }
    if CELLS > 22u {
        slab.c22 = load_quad(operand, at + 22u, factor);
    }
    if CELLS > 23u {
        slab.c23 = load_quad(operand, at + 23u, factor);
    }
    if CELLS > 24u {
        slab.c24 = load_quad(operand, at + 24u, factor);
    }
    if CELLS > 25u {
        slab.c25 = load_quad(operand, at + 25u, factor);
    }
    if CELLS > 26u {
        slab.c26 = load_quad(operand, at + 26u, factor);
    }
    if CELLS > 27u {
        slab.c27 = load_quad(operand, at + 27u, factor);
    }
    if CELLS > 28u {
        slab.c28 = load_quad(operand, at + 28u, factor);
    }
    if CELLS > 29u {
        slab.c29 = load_quad(operand, at + 29u, factor);
    }
    if CELLS > 30u {
        slab.c30 = load_quad(operand, at + 30u, factor);
    }
    if CELLS > 31u {
        slab.c31 = load_quad(operand, at + 31u, factor);
    }
    return slab;
}

// Products of the rows of a lane with the row at `at`.
fn dots(slab: Slab, operand: u32, at: u32) -> Rows {
    var sums = Rows();
    sums += slab.c0 * load(operand, at);
    if CELLS > 1u {
        sums += slab.c1 * load(operand, at + 1u);
    }
    if CELLS > 2u {
        sums += slab.c2 * load(operand, at + 2u);
    }
    if CELLS > 3u {
        sums += slab.c3 * load(operand, at + 3u);
    }
    if CELLS > 4u {
        sums += slab.c4 * load(operand, at + 4u);
    }
    if CELLS > 5u {
        sums += slab.c5 * load(operand, at + 5u);
    }
    if CELLS > 6u {
        sums += slab.c6 * load(operand, at + 6u);
    }
    if CELLS > 7u {
        sums += slab.c7 * load(operand, at + 7u);
    }
    if CELLS > 8u {
        sums += slab.c8 * load(operand, at + 8u);
    }
    if CELLS > 9u {
        sums += slab.c9 * load(operand, at + 9u);
    }
    if CELLS > 10u {
        sums += slab.c10 * load(operand, at + 10u);
    }
    if CELLS > 11u {
        sums += slab.c11 * load(operand, at + 11u);
    }
    if CELLS > 12u {
        sums += slab.c12 * load(operand, at + 12u);
    }
    if CELLS > 13u {
        sums += slab.c13 * load(operand, at + 13u);
    }
    if CELLS > 14u {
        sums += slab.c14 * load(operand, at + 14u);
    }
    if CELLS > 15u {
        sums += slab.c15 * load(operand, at + 15u);
    }
    if CELLS > 16u {
        sums += slab.c16 * load(operand, at + 16u);
    }
    if CELLS > 17u {
        sums += slab.c17 * load(operand, at + 17u);
    }
    if CELLS > 18u {
        sums += slab.c18 * load(operand, at + 18u);
    }
    if CELLS > 19u {
        sums += slab.c19 * load(operand, at + 19u);
    }
    if CELLS > 20u {
        sums += slab.c20 * load(operand, at + 20u);
    }
    if CELLS > 21u {
        sums += slab.c21 * load(operand, at + 21u);
    }
    if CELLS > 22u {
        sums += slab.c22 * load(operand, at + 22u);
    }
    if CELLS > 23u {
        sums += slab.c23 * load(operand, at + 23u);
    }
    if CELLS > 24u {
        sums += slab.c24 * load(operand, at + 24u);
    }
    if CELLS > 25u {
        sums += slab.c25 * load(operand, at + 25u);
    }
    if CELLS > 26u {
        sums += slab.c26 * load(operand, at + 26u);
    }
    if CELLS > 27u {
        sums += slab.c27 * load(operand, at + 27u);
    }
    if CELLS > 28u {
        sums += slab.c28 * load(operand, at + 28u);
    }
    if CELLS > 29u {
        sums += slab.c29 * load(operand, at + 29u);
    }
    if CELLS > 30u {
        sums += slab.c30 * load(operand, at + 30u);
    }
    if CELLS > 31u {
        sums += slab.c31 * load(operand, at + 31u);
    }
    return sums;
}

// The weights of a block out of scratch memory; zero from position `count` on.
fn load_weights(lane: u32, count: u32) -> Weights {
    var weights: Weights;
    weights.w0 = four_weights(lane, 0u, count);
    weights.w1 = four_weights(lane, 4u, count);
    weights.w2 = four_weights(lane, 8u, count);
    weights.w3 = four_weights(lane, 12u, count);
    weights.w4 = four_weights(lane, 16u, count);
    weights.w5 = four_weights(lane, 20u, count);
    weights.w6 = four_weights(lane, 24u, count);
    weights.w7 = four_weights(lane, 28u, count);
    if DEPTH > 32u {
        weights.w8 = four_weights(lane, 32u, count);
        weights.w9 = four_weights(lane, 36u, count);
        weights.w10 = four_weights(lane, 40u, count);
        weights.w11 = four_weights(lane, 44u, count);
    }
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
        sums += weights.w0 * load_four(block, 0u, cell);
        sums += weights.w1 * load_four(block, 4u, cell);
        sums += weights.w2 * load_four(block, 8u, cell);
        sums += weights.w3 * load_four(block, 12u, cell);
        sums += weights.w4 * load_four(block, 16u, cell);
        sums += weights.w5 * load_four(block, 20u, cell);
        sums += weights.w6 * load_four(block, 24u, cell);
        sums += weights.w7 * load_four(block, 28u, cell);
        if DEPTH > 32u {
            sums += weights.w8 * load_four(block, 32u, cell);
            sums += weights.w9 * load_four(block, 36u, cell);
            sums += weights.w10 * load_four(block, 40u, cell);
            sums += weights.w11 * load_four(block, 44u, cell);
        }
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
