// GEMM for software devices: C[b, m, n] = epilogue(alpha * sum_k A[b, m, k] * B[b, k, n]), all f32.
//
//            4 * LANES columns       One workgroup is one SIMD vector of LANES invocations. It owns a panel of 4 * LANES
//           +-----------------+      columns and a stripe of tile_rows rows of C. For each DEPTH steps of k, each lane
//     DEPTH | B: registers of |      loads DEPTH rows x 4 columns of B into named matrices (16 KiB for 64 steps and 16
//           | the lanes       |      lanes: they end up in the first level cache), then the workgroup walks down the stripe,
//           +-----------------+      four rows at a time: 4 x 4 values of A, equal for all lanes, times a 4 x 4 block of B
//   +----+  +-----------------+      per lane. Between the blocks of k the sums live in C.
//   | A  |  | C: tile_rows    |
//   +----+  +-----------------+      Loads that differ from lane to lane are what such a device is slow at: here only B,
//                                    once per stripe, and C, once per DEPTH steps of k, are loaded that way: in words of
//                                    64 bits where the device has them, which take no longer than words of 32.
//
// alpha is applied to B. Where k ends within a block, B is filled up with zeros, and A repeats elements of the same row.
//
// Bindings: 0 Params, 1 A, 2 B, 3 C, 4.. the hook's. Knobs (header): LANES, DEPTH (16 or 64), A_TRANSPOSED, B_TRANSPOSED,
// ACCUMULATE, CELL. Hooks: load_a, load_b, load_c, store_c, epilogue. Workgroup memory: none. No subgroup operations; correct
// for any LANES on any device.

// DEPTH rows x 4 columns of B; all but four matrices stay unused where DEPTH is 16.
struct Slab {
    b0: mat4x4<f32>,
    b1: mat4x4<f32>,
    b2: mat4x4<f32>,
    b3: mat4x4<f32>,
    b4: mat4x4<f32>,
    b5: mat4x4<f32>,
    b6: mat4x4<f32>,
    b7: mat4x4<f32>,
    b8: mat4x4<f32>,
    b9: mat4x4<f32>,
    b10: mat4x4<f32>,
    b11: mat4x4<f32>,
    b12: mat4x4<f32>,
    b13: mat4x4<f32>,
    b14: mat4x4<f32>,
    b15: mat4x4<f32>,
}

// alpha * B[k .. k + DEPTH, column .. column + 4], zero beyond the end of k.
fn load_slab(base: u32, k: u32, column: u32) -> Slab {
    var slab: Slab;
    slab.b0 = load_scaled(base, k, column);
    slab.b1 = load_scaled(base, k + 4u, column);
    slab.b2 = load_scaled(base, k + 8u, column);
    slab.b3 = load_scaled(base, k + 12u, column);
    if DEPTH > 16u {
        slab.b4 = load_scaled(base, k + 16u, column);
        slab.b5 = load_scaled(base, k + 20u, column);
        slab.b6 = load_scaled(base, k + 24u, column);
        slab.b7 = load_scaled(base, k + 28u, column);
        slab.b8 = load_scaled(base, k + 32u, column);
        slab.b9 = load_scaled(base, k + 36u, column);
        slab.b10 = load_scaled(base, k + 40u, column);
        slab.b11 = load_scaled(base, k + 44u, column);
        slab.b12 = load_scaled(base, k + 48u, column);
        slab.b13 = load_scaled(base, k + 52u, column);
        slab.b14 = load_scaled(base, k + 56u, column);
        slab.b15 = load_scaled(base, k + 60u, column);
    }
    return slab;
}

fn load_scaled(base: u32, k: u32, column: u32) -> mat4x4<f32> {
    return p.alpha * mask_b_block(load_b_block(base, k, column), k);
}

// What the blocks of k before this one left of four rows.
fn load_rows(place: Place, row: u32, column: u32, first: bool) -> mat4x4<f32> {
    var rows = mat4x4<f32>();
    if !first || ACCUMULATE {
        let c_column = clamped(column, p.n);
        let last = last_below(c_column, p.n);
        let at = four_rows(place.c, p.c_row, row, p.m) + c_column / CELL;
        rows = mat4x4<f32>(load_c(at.x, last), load_c(at.y, last), load_c(at.z, last), load_c(at.w, last));
    }
    return rows;
}

fn store_row(place: Place, row: u32, column: u32, final_block: bool, sum: vec4<f32>) {
    if row < p.m && column < p.n {
        let last = last_below(column, p.n);
        var value = sum;
        if final_block {
            value = finish_c(place, row, column, last, sum);
        }
        store_c(place.c + row * p.c_row + column / CELL, last, value);
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

    for (var k = 0u; k < p.k; k += DEPTH) {
        let slab = load_slab(place.b, k, column);
        let final_block = k + DEPTH >= p.k;
        for (var row = first_row; row < end_row; row += 4u) {
            var sums = mat4x4<f32>();
            sums = multiply(sums, place.a, row, k, slab.b0);
            sums = multiply(sums, place.a, row, k + 4u, slab.b1);
            sums = multiply(sums, place.a, row, k + 8u, slab.b2);
            sums = multiply(sums, place.a, row, k + 12u, slab.b3);
            if DEPTH > 16u {
                sums = multiply(sums, place.a, row, k + 16u, slab.b4);
                sums = multiply(sums, place.a, row, k + 20u, slab.b5);
                sums = multiply(sums, place.a, row, k + 24u, slab.b6);
                sums = multiply(sums, place.a, row, k + 28u, slab.b7);
            }
            // Loaded amid the products, so that they hide how long it takes.
            let before = load_rows(place, row, column, k == 0u);
            if DEPTH > 16u {
                sums = multiply(sums, place.a, row, k + 32u, slab.b8);
                sums = multiply(sums, place.a, row, k + 36u, slab.b9);
                sums = multiply(sums, place.a, row, k + 40u, slab.b10);
                sums = multiply(sums, place.a, row, k + 44u, slab.b11);
                sums = multiply(sums, place.a, row, k + 48u, slab.b12);
                sums = multiply(sums, place.a, row, k + 52u, slab.b13);
                sums = multiply(sums, place.a, row, k + 56u, slab.b14);
                sums = multiply(sums, place.a, row, k + 60u, slab.b15);
            }
            store_row(place, row, column, final_block, sums[0] + before[0]);
            store_row(place, row + 1u, column, final_block, sums[1] + before[1]);
            store_row(place, row + 2u, column, final_block, sums[2] + before[2]);
            store_row(place, row + 3u, column, final_block, sums[3] + before[3]);
        }
    }
}
