// GEMM for software devices: C[b, m, n] = epilogue(alpha * sum_k A[b, m, k] * B[b, k, n]), all f32.
//
//             4 * LANES columns        One workgroup is one SIMD vector of LANES invocations. It owns a panel of 4 * LANES
//            +-----------------+       columns and a stripe of tile_rows rows of C. For each 128 steps of k, each lane
//       128  | B: registers of |       loads 128 rows x 4 columns of B into 32 named matrices (they end up in the first
//            | the lanes       |       level cache), then the workgroup walks down the stripe, four rows at a time:
//            +-----------------+       sixteen values of A, equal for all lanes, times a 4 x 4 block of B per lane.
//   +-----+  +-----------------+       Between the blocks of k the sums live in C.
//   |  A  |  | C: tile_rows    |
//   +-----+  +-----------------+       Loads that differ from lane to lane are what such a device is slow at: here only
//                                      B, once per stripe, and C, once per 128 steps of k, are loaded that way.
//
// The epilogue only ever adds to its argument, so it is applied to the sums' starting value and alpha to B.
//
// Bindings: 0 Params, 1 A, 2 B, [3 D], last C. Knobs (header): LANES, A_TRANSPOSED, B_TRANSPOSED, CELL, C_BINDING.
// Hooks: load_a, load_b, epilogue. Workgroup memory: none. No subgroup operations, any LANES is correct anywhere.

// 32 rows x 4 columns of B.
struct Slab {
    b0: mat4x4<f32>,
    b1: mat4x4<f32>,
    b2: mat4x4<f32>,
    b3: mat4x4<f32>,
    b4: mat4x4<f32>,
    b5: mat4x4<f32>,
    b6: mat4x4<f32>,
    b7: mat4x4<f32>,
}

// alpha * B[k .. k + 32, column .. column + 4], zero beyond k and n.
fn load_slab(base: u32, k: u32, column: u32) -> Slab {
    return Slab(
        p.alpha * load_b_block(base, k, column),
        p.alpha * load_b_block(base, k + 4u, column),
        p.alpha * load_b_block(base, k + 8u, column),
        p.alpha * load_b_block(base, k + 12u, column),
        p.alpha * load_b_block(base, k + 16u, column),
        p.alpha * load_b_block(base, k + 20u, column),
        p.alpha * load_b_block(base, k + 24u, column),
        p.alpha * load_b_block(base, k + 28u, column),
    );
}

// sums + A[row .. row + 4, k .. k + 32] * slab; column i of the sums is row + i of C.
fn multiply(sums: mat4x4<f32>, base: u32, row: u32, k: u32, slab: Slab) -> mat4x4<f32> {
    var acc = sums;
    acc += slab.b0 * load_a_block(base, row, k);
    acc += slab.b1 * load_a_block(base, row, k + 4u);
    acc += slab.b2 * load_a_block(base, row, k + 8u);
    acc += slab.b3 * load_a_block(base, row, k + 12u);
    acc += slab.b4 * load_a_block(base, row, k + 16u);
    acc += slab.b5 * load_a_block(base, row, k + 20u);
    acc += slab.b6 * load_a_block(base, row, k + 24u);
    acc += slab.b7 * load_a_block(base, row, k + 28u);
    return acc;
}

// Where the sums of one row start: at the epilogue of zero, later at what the last block of k left in C.
fn load_row(place: Place, row: u32, column: u32, first: bool) -> vec4<f32> {
    if row >= p.m {
        return vec4<f32>();
    }
    let valid = remaining(column, p.n);
    let c_at = place.c + row * p.c_row + column / CELL;
    if first {
        return epilogue(vec4<f32>(), c_at, place.d + row * p.d_row + column / CELL, valid);
    }
    return load_c(c_at, valid);
}

fn store_row(place: Place, row: u32, column: u32, sum: vec4<f32>) {
    if row < p.m {
        store_c(place.c + row * p.c_row + column / CELL, remaining(column, p.n), sum);
    }
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let id = group.x + group.y * p.grid_x;
    if id >= p.tiles {
        return;
    }
    let place = place_of(id);
    let first_row = p.tile_rows * place.row_tile;
    let end_row = min(first_row + p.tile_rows, p.m);
    let column = 4u * (LANES * place.column_tile + lane);

    for (var k0 = 0u; k0 < p.k; k0 += 128u) {
        let slab0 = load_slab(place.b, k0, column);
        let slab1 = load_slab(place.b, k0 + 32u, column);
        let slab2 = load_slab(place.b, k0 + 64u, column);
        let slab3 = load_slab(place.b, k0 + 96u, column);
        for (var row = first_row; row < end_row; row += 4u) {
            var sums = mat4x4<f32>(
                load_row(place, row, column, k0 == 0u),
                load_row(place, row + 1u, column, k0 == 0u),
                load_row(place, row + 2u, column, k0 == 0u),
                load_row(place, row + 3u, column, k0 == 0u),
            );
            sums = multiply(sums, place.a, row, k0, slab0);
            sums = multiply(sums, place.a, row, k0 + 32u, slab1);
            sums = multiply(sums, place.a, row, k0 + 64u, slab2);
            sums = multiply(sums, place.a, row, k0 + 96u, slab3);
            store_row(place, row, column, sums[0]);
            store_row(place, row + 1u, column, sums[1]);
            store_row(place, row + 2u, column, sums[2]);
            store_row(place, row + 3u, column, sums[3]);
        }
    }
}
