// GEMM for software devices where A has few rows: P = A * B, and C[b] = epilogue(alpha * P), or its transpose.
//
//            4 * LANES columns       One workgroup is one SIMD vector of LANES invocations and computes 16 rows of P and
//       +-------------------------+  4 * LANES columns, all of k at once: each lane keeps 16 rows x 4 columns of sums, and for
//     k | B: 4 columns of a lane  |  every four steps of k loads 4 x 4 values of B of its own and 16 x 4 of A, equal for all
//       +-------------------------+  lanes. B is loaded once per 16 rows, C never, or once.
//   +---+ +-----------------------+
// 16| A | | 16 rows of sums       |  C_TRANSPOSED: the columns of P are the rows of C, for products with few columns: then A is
//   +---+ +-----------------------+  the right factor, transposed, B the left one, and p.m and p.n are swapped.
//
// Bindings: 0 Params, 1 A, 2 B, 3 C, 4.. the hook's (with C_TRANSPOSED 1 B, 2 A). Knobs (header): LANES, A_TRANSPOSED,
// B_TRANSPOSED, C_TRANSPOSED, ACCUMULATE, CELL. Hooks: load_a, load_b, load_c, store_c, epilogue. Workgroup memory: none. No
// subgroup operations; correct for any LANES on any device.

// The product of a column of A and a row of B; column i of the result is row i of C.
fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a.x * b, a.y * b, a.z * b, a.w * b);
}

// sums + a * b, one outer product after the other: then a row of b, once loaded, meets all four rows of A. Column i of a and
// of the sums is row i.
fn add_outer(sums: mat4x4<f32>, a: mat4x4<f32>, b: mat4x4<f32>) -> mat4x4<f32> {
    let columns = transpose(a);
    var acc = sums;
    acc += outer(columns[0], b[0]);
    acc += outer(columns[1], b[1]);
    acc += outer(columns[2], b[2]);
    acc += outer(columns[3], b[3]);
    return acc;
}

// Stores four neighbouring elements of C, unless they begin beyond its edge.
fn store_row(place: Place, row: u32, column: u32, sum: vec4<f32>) {
    let rows = select(p.m, p.n, C_TRANSPOSED);
    let columns = select(p.n, p.m, C_TRANSPOSED);
    if row < rows && column < columns {
        let last = last_below(column, columns);
        let at = place.c + row * p.c_row + column / CELL;
        var value = p.alpha * sum;
        if ACCUMULATE {
            value += load_c(at, last);
        }
        store_c(at, last, finish_c(place, row, column, last, value));
    }
}

// Stores 4 rows of P, from `row` on, and the lane's 4 columns; column i of the sums is row + i.
fn store_block(place: Place, row: u32, column: u32, sums: mat4x4<f32>) {
    let first_row = select(row, column, C_TRANSPOSED);
    let first_column = select(column, row, C_TRANSPOSED);
    var rows = sums;
    if C_TRANSPOSED {
        rows = transpose(sums);
    }
    store_row(place, first_row, first_column, rows[0]);
    store_row(place, first_row + 1u, first_column, rows[1]);
    store_row(place, first_row + 2u, first_column, rows[2]);
    store_row(place, first_row + 3u, first_column, rows[3]);
}

fn tile(id: u32, lane: u32) {
    let place = place_of(id);
    let row = p.tile_rows * place.row_tile;
    let column = 4u * (LANES * place.column_tile + lane);

    var sums0 = mat4x4<f32>();
    var sums1 = mat4x4<f32>();
    var sums2 = mat4x4<f32>();
    var sums3 = mat4x4<f32>();
    for (var k = 0u; k < p.k; k += 4u) {
        let b = mask_b_block(load_b_block(place.b, k, column), k);
        sums0 = add_outer(sums0, load_a_block(place.a, row, k), b);
        sums1 = add_outer(sums1, load_a_block(place.a, row + 4u, k), b);
        sums2 = add_outer(sums2, load_a_block(place.a, row + 8u, k), b);
        sums3 = add_outer(sums3, load_a_block(place.a, row + 12u, k), b);
    }
    store_block(place, row, column, sums0);
    store_block(place, row + 4u, column, sums1);
    store_block(place, row + 8u, column, sums2);
    store_block(place, row + 12u, column, sums3);
}
