// Rows in registers, for the software-device kernels of attention.
//
// One workgroup is one SIMD vector of LANES invocations; each lane owns two rows of an operand, as named matrices of four
// elements of both rows. Other rows are walked over four at a time: their addresses are equal for all lanes, which such a device loads
// as one number each. Sums over a row, a softmax among them, then need nothing from another lane.
//
// E is up to 128; matrices beyond it stay unused.

struct Slab {
    c0: mat2x4<f32>,
    c1: mat2x4<f32>,
    c2: mat2x4<f32>,
    c3: mat2x4<f32>,
    c4: mat2x4<f32>,
    c5: mat2x4<f32>,
    c6: mat2x4<f32>,
    c7: mat2x4<f32>,
    c8: mat2x4<f32>,
    c9: mat2x4<f32>,
    c10: mat2x4<f32>,
    c11: mat2x4<f32>,
    c12: mat2x4<f32>,
    c13: mat2x4<f32>,
    c14: mat2x4<f32>,
    c15: mat2x4<f32>,
    c16: mat2x4<f32>,
    c17: mat2x4<f32>,
    c18: mat2x4<f32>,
    c19: mat2x4<f32>,
    c20: mat2x4<f32>,
    c21: mat2x4<f32>,
    c22: mat2x4<f32>,
    c23: mat2x4<f32>,
    c24: mat2x4<f32>,
    c25: mat2x4<f32>,
    c26: mat2x4<f32>,
    c27: mat2x4<f32>,
    c28: mat2x4<f32>,
    c29: mat2x4<f32>,
    c30: mat2x4<f32>,
    c31: mat2x4<f32>,
}

const Q = 0u;
const K = 1u;
const V = 2u;
const DY = 3u;

fn load(operand: u32, at: u32) -> vec4<f32> {
    if operand == Q {
        return q[at];
    }
    if operand == K {
        return k[at];
    }
    if operand == V {
        return load_v(at);
    }
    return load_dy(at);
}

// One cell of two rows, times a factor.
fn load_two(operand: u32, at: vec2<u32>, factor: f32) -> mat2x4<f32> {
    return factor * mat2x4<f32>(load(operand, at.x), load(operand, at.y));
}

// One cell of four rows; column i is row i.
fn load_four(operand: u32, at: vec4<u32>) -> mat4x4<f32> {
    return mat4x4<f32>(load(operand, at.x), load(operand, at.y), load(operand, at.z), load(operand, at.w));
}

// The first cells of four rows from `first` on; beyond `end` the last one repeats.
fn four_rows(base: u32, stride: u32, first: u32, end: u32) -> vec4<u32> {
    return base + stride * min(first + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(end - 1u));
}

fn two_rows(base: u32, stride: u32, first: u32, end: u32) -> vec2<u32> {
    return base + stride * min(first + vec2<u32>(0u, 1u), vec2<u32>(end - 1u));
}

fn scaled(rows: mat2x4<f32>, factors: vec2<f32>) -> mat2x4<f32> {
    return mat2x4<f32>(rows[0] * factors.x, rows[1] * factors.y);
}

// The rows of a lane, times a factor.
fn load_slab(operand: u32, at: vec2<u32>, factor: f32) -> Slab {
    var slab: Slab;
    slab.c0 = load_two(operand, at, factor);
    if CELLS > 1u {
        slab.c1 = load_two(operand, at + 1u, factor);
    }
    if CELLS > 2u {
        slab.c2 = load_two(operand, at + 2u, factor);
    }
    if CELLS > 3u {
        slab.c3 = load_two(operand, at + 3u, factor);
    }
    if CELLS > 4u {
        slab.c4 = load_two(operand, at + 4u, factor);
    }
    if CELLS > 5u {
        slab.c5 = load_two(operand, at + 5u, factor);
    }
    if CELLS > 6u {
        slab.c6 = load_two(operand, at + 6u, factor);
    }
    if CELLS > 7u {
        slab.c7 = load_two(operand, at + 7u, factor);
    }
    if CELLS > 8u {
        slab.c8 = load_two(operand, at + 8u, factor);
    }
    if CELLS > 9u {
        slab.c9 = load_two(operand, at + 9u, factor);
    }
    if CELLS > 10u {
        slab.c10 = load_two(operand, at + 10u, factor);
    }
    if CELLS > 11u {
        slab.c11 = load_two(operand, at + 11u, factor);
    }
    if CELLS > 12u {
        slab.c12 = load_two(operand, at + 12u, factor);
    }
    if CELLS > 13u {
        slab.c13 = load_two(operand, at + 13u, factor);
    }
    if CELLS > 14u {
        slab.c14 = load_two(operand, at + 14u, factor);
    }
    if CELLS > 15u {
        slab.c15 = load_two(operand, at + 15u, factor);
    }
    if CELLS > 16u {
        slab.c16 = load_two(operand, at + 16u, factor);
    }
    if CELLS > 17u {
        slab.c17 = load_two(operand, at + 17u, factor);
    }
    if CELLS > 18u {
        slab.c18 = load_two(operand, at + 18u, factor);
    }
    if CELLS > 19u {
        slab.c19 = load_two(operand, at + 19u, factor);
    }
    if CELLS > 20u {
        slab.c20 = load_two(operand, at + 20u, factor);
    }
    if CELLS > 21u {
        slab.c21 = load_two(operand, at + 21u, factor);
    }
    if CELLS > 22u {
        slab.c22 = load_two(operand, at + 22u, factor);
    }
    if CELLS > 23u {
        slab.c23 = load_two(operand, at + 23u, factor);
    }
    if CELLS > 24u {
        slab.c24 = load_two(operand, at + 24u, factor);
    }
    if CELLS > 25u {
        slab.c25 = load_two(operand, at + 25u, factor);
    }
    if CELLS > 26u {
        slab.c26 = load_two(operand, at + 26u, factor);
    }
    if CELLS > 27u {
        slab.c27 = load_two(operand, at + 27u, factor);
    }
    if CELLS > 28u {
        slab.c28 = load_two(operand, at + 28u, factor);
    }
    if CELLS > 29u {
        slab.c29 = load_two(operand, at + 29u, factor);
    }
    if CELLS > 30u {
        slab.c30 = load_two(operand, at + 30u, factor);
    }
    if CELLS > 31u {
        slab.c31 = load_two(operand, at + 31u, factor);
    }
    return slab;
}

// Products of four rows (rows of the result) with the two of a lane (columns).
fn dots(operand: u32, at: vec4<u32>, slab: Slab) -> mat2x4<f32> {
    var sums = mat2x4<f32>();
    sums += transpose(load_four(operand, at)) * slab.c0;
    if CELLS > 1u {
        sums += transpose(load_four(operand, at + 1u)) * slab.c1;
    }
    if CELLS > 2u {
        sums += transpose(load_four(operand, at + 2u)) * slab.c2;
    }
    if CELLS > 3u {
        sums += transpose(load_four(operand, at + 3u)) * slab.c3;
    }
    if CELLS > 4u {
        sums += transpose(load_four(operand, at + 4u)) * slab.c4;
    }
    if CELLS > 5u {
        sums += transpose(load_four(operand, at + 5u)) * slab.c5;
    }
    if CELLS > 6u {
        sums += transpose(load_four(operand, at + 6u)) * slab.c6;
    }
    if CELLS > 7u {
        sums += transpose(load_four(operand, at + 7u)) * slab.c7;
    }
    if CELLS > 8u {
        sums += transpose(load_four(operand, at + 8u)) * slab.c8;
    }
    if CELLS > 9u {
        sums += transpose(load_four(operand, at + 9u)) * slab.c9;
    }
    if CELLS > 10u {
        sums += transpose(load_four(operand, at + 10u)) * slab.c10;
    }
    if CELLS > 11u {
        sums += transpose(load_four(operand, at + 11u)) * slab.c11;
    }
    if CELLS > 12u {
        sums += transpose(load_four(operand, at + 12u)) * slab.c12;
    }
    if CELLS > 13u {
        sums += transpose(load_four(operand, at + 13u)) * slab.c13;
    }
    if CELLS > 14u {
        sums += transpose(load_four(operand, at + 14u)) * slab.c14;
    }
    if CELLS > 15u {
        sums += transpose(load_four(operand, at + 15u)) * slab.c15;
    }
    if CELLS > 16u {
        sums += transpose(load_four(operand, at + 16u)) * slab.c16;
    }
    if CELLS > 17u {
        sums += transpose(load_four(operand, at + 17u)) * slab.c17;
    }
    if CELLS > 18u {
        sums += transpose(load_four(operand, at + 18u)) * slab.c18;
    }
    if CELLS > 19u {
        sums += transpose(load_four(operand, at + 19u)) * slab.c19;
    }
    if CELLS > 20u {
        sums += transpose(load_four(operand, at + 20u)) * slab.c20;
    }
    if CELLS > 21u {
        sums += transpose(load_four(operand, at + 21u)) * slab.c21;
    }
    if CELLS > 22u {
        sums += transpose(load_four(operand, at + 22u)) * slab.c22;
    }
    if CELLS > 23u {
        sums += transpose(load_four(operand, at + 23u)) * slab.c23;
    }
    if CELLS > 24u {
        sums += transpose(load_four(operand, at + 24u)) * slab.c24;
    }
    if CELLS > 25u {
        sums += transpose(load_four(operand, at + 25u)) * slab.c25;
    }
    if CELLS > 26u {
        sums += transpose(load_four(operand, at + 26u)) * slab.c26;
    }
    if CELLS > 27u {
        sums += transpose(load_four(operand, at + 27u)) * slab.c27;
    }
    if CELLS > 28u {
        sums += transpose(load_four(operand, at + 28u)) * slab.c28;
    }
    if CELLS > 29u {
        sums += transpose(load_four(operand, at + 29u)) * slab.c29;
    }
    if CELLS > 30u {
        sums += transpose(load_four(operand, at + 30u)) * slab.c30;
    }
    if CELLS > 31u {
        sums += transpose(load_four(operand, at + 31u)) * slab.c31;
    }
    return sums;
}

// factors * slab + weights * four rows, for each of the two rows of a lane.
fn add_rows(slab: Slab, factors: vec2<f32>, operand: u32, at: vec4<u32>, weights: mat2x4<f32>) -> Slab {
    var sums: Slab;
    sums.c0 = scaled(slab.c0, factors) + load_four(operand, at) * weights;
    if CELLS > 1u {
        sums.c1 = scaled(slab.c1, factors) + load_four(operand, at + 1u) * weights;
    }
    if CELLS > 2u {
        sums.c2 = scaled(slab.c2, factors) + load_four(operand, at + 2u) * weights;
    }
    if CELLS > 3u {
        sums.c3 = scaled(slab.c3, factors) + load_four(operand, at + 3u) * weights;
    }
    if CELLS > 4u {
        sums.c4 = scaled(slab.c4, factors) + load_four(operand, at + 4u) * weights;
    }
    if CELLS > 5u {
        sums.c5 = scaled(slab.c5, factors) + load_four(operand, at + 5u) * weights;
    }
    if CELLS > 6u {
        sums.c6 = scaled(slab.c6, factors) + load_four(operand, at + 6u) * weights;
    }
    if CELLS > 7u {
        sums.c7 = scaled(slab.c7, factors) + load_four(operand, at + 7u) * weights;
    }
    if CELLS > 8u {
        sums.c8 = scaled(slab.c8, factors) + load_four(operand, at + 8u) * weights;
    }
    if CELLS > 9u {
        sums.c9 = scaled(slab.c9, factors) + load_four(operand, at + 9u) * weights;
    }
    if CELLS > 10u {
        sums.c10 = scaled(slab.c10, factors) + load_four(operand, at + 10u) * weights;
    }
    if CELLS > 11u {
        sums.c11 = scaled(slab.c11, factors) + load_four(operand, at + 11u) * weights;
    }
    if CELLS > 12u {
        sums.c12 = scaled(slab.c12, factors) + load_four(operand, at + 12u) * weights;
    }
    if CELLS > 13u {
        sums.c13 = scaled(slab.c13, factors) + load_four(operand, at + 13u) * weights;
    }
    if CELLS > 14u {
        sums.c14 = scaled(slab.c14, factors) + load_four(operand, at + 14u) * weights;
    }
    if CELLS > 15u {
        sums.c15 = scaled(slab.c15, factors) + load_four(operand, at + 15u) * weights;
    }
    if CELLS > 16u {
        sums.c16 = scaled(slab.c16, factors) + load_four(operand, at + 16u) * weights;
    }
    if CELLS > 17u {
        sums.c17 = scaled(slab.c17, factors) + load_four(operand, at + 17u) * weights;
    }
    if CELLS > 18u {
        sums.c18 = scaled(slab.c18, factors) + load_four(operand, at + 18u) * weights;
    }
    if CELLS > 19u {
        sums.c19 = scaled(slab.c19, factors) + load_four(operand, at + 19u) * weights;
    }
    if CELLS > 20u {
        sums.c20 = scaled(slab.c20, factors) + load_four(operand, at + 20u) * weights;
    }
    if CELLS > 21u {
        sums.c21 = scaled(slab.c21, factors) + load_four(operand, at + 21u) * weights;
    }
    if CELLS > 22u {
        sums.c22 = scaled(slab.c22, factors) + load_four(operand, at + 22u) * weights;
    }
    if CELLS > 23u {
        sums.c23 = scaled(slab.c23, factors) + load_four(operand, at + 23u) * weights;
    }
    if CELLS > 24u {
        sums.c24 = scaled(slab.c24, factors) + load_four(operand, at + 24u) * weights;
    }
    if CELLS > 25u {
        sums.c25 = scaled(slab.c25, factors) + load_four(operand, at + 25u) * weights;
    }
    if CELLS > 26u {
        sums.c26 = scaled(slab.c26, factors) + load_four(operand, at + 26u) * weights;
    }
    if CELLS > 27u {
        sums.c27 = scaled(slab.c27, factors) + load_four(operand, at + 27u) * weights;
    }
    if CELLS > 28u {
        sums.c28 = scaled(slab.c28, factors) + load_four(operand, at + 28u) * weights;
    }
    if CELLS > 29u {
        sums.c29 = scaled(slab.c29, factors) + load_four(operand, at + 29u) * weights;
    }
    if CELLS > 30u {
        sums.c30 = scaled(slab.c30, factors) + load_four(operand, at + 30u) * weights;
    }
    if CELLS > 31u {
        sums.c31 = scaled(slab.c31, factors) + load_four(operand, at + 31u) * weights;
    }
    return sums;
}

// Gives every cell of row j of a lane, times a factor, to the hook `store_cell`.
fn store_slab(result: u32, at: u32, slab: Slab, j: u32, factor: f32) {
    store_cell(result, at, factor * slab.c0[j]);
    if CELLS > 1u {
        store_cell(result, at + 1u, factor * slab.c1[j]);
    }
    if CELLS > 2u {
        store_cell(result, at + 2u, factor * slab.c2[j]);
    }
    if CELLS > 3u {
        store_cell(result, at + 3u, factor * slab.c3[j]);
    }
    if CELLS > 4u {
        store_cell(result, at + 4u, factor * slab.c4[j]);
    }
    if CELLS > 5u {
        store_cell(result, at + 5u, factor * slab.c5[j]);
    }
    if CELLS > 6u {
        store_cell(result, at + 6u, factor * slab.c6[j]);
    }
    if CELLS > 7u {
        store_cell(result, at + 7u, factor * slab.c7[j]);
    }
    if CELLS > 8u {
        store_cell(result, at + 8u, factor * slab.c8[j]);
    }
    if CELLS > 9u {
        store_cell(result, at + 9u, factor * slab.c9[j]);
    }
    if CELLS > 10u {
        store_cell(result, at + 10u, factor * slab.c10[j]);
    }
    if CELLS > 11u {
        store_cell(result, at + 11u, factor * slab.c11[j]);
    }
    if CELLS > 12u {
        store_cell(result, at + 12u, factor * slab.c12[j]);
    }
    if CELLS > 13u {
        store_cell(result, at + 13u, factor * slab.c13[j]);
    }
    if CELLS > 14u {
        store_cell(result, at + 14u, factor * slab.c14[j]);
    }
    if CELLS > 15u {
        store_cell(result, at + 15u, factor * slab.c15[j]);
    }
    if CELLS > 16u {
        store_cell(result, at + 16u, factor * slab.c16[j]);
    }
    if CELLS > 17u {
        store_cell(result, at + 17u, factor * slab.c17[j]);
    }
    if CELLS > 18u {
        store_cell(result, at + 18u, factor * slab.c18[j]);
    }
    if CELLS > 19u {
        store_cell(result, at + 19u, factor * slab.c19[j]);
    }
    if CELLS > 20u {
        store_cell(result, at + 20u, factor * slab.c20[j]);
    }
    if CELLS > 21u {
        store_cell(result, at + 21u, factor * slab.c21[j]);
    }
    if CELLS > 22u {
        store_cell(result, at + 22u, factor * slab.c22[j]);
    }
    if CELLS > 23u {
        store_cell(result, at + 23u, factor * slab.c23[j]);
    }
    if CELLS > 24u {
        store_cell(result, at + 24u, factor * slab.c24[j]);
    }
    if CELLS > 25u {
        store_cell(result, at + 25u, factor * slab.c25[j]);
    }
    if CELLS > 26u {
        store_cell(result, at + 26u, factor * slab.c26[j]);
    }
    if CELLS > 27u {
        store_cell(result, at + 27u, factor * slab.c27[j]);
    }
    if CELLS > 28u {
        store_cell(result, at + 28u, factor * slab.c28[j]);
    }
    if CELLS > 29u {
        store_cell(result, at + 29u, factor * slab.c29[j]);
    }
    if CELLS > 30u {
        store_cell(result, at + 30u, factor * slab.c30[j]);
    }
    if CELLS > 31u {
        store_cell(result, at + 31u, factor * slab.c31[j]);
    }
}
