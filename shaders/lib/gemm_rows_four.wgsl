// The panel's rows of A and C, four at a time: A is stored by columns, and a cell holds four rows.

const ROWS: u32 = 4u;
alias Rows = mat4x4<f32>;

// A[row .. row + 4, k .. k + 4]; column i is row + i of A.
fn load_rows(base: u32, row: u32, k: u32) -> Rows {
    return load_a_block(base, row, k);
}

// sums + a * b
fn multiply_rows(sums: Rows, a: Rows, b: mat4x4<f32>) -> Rows {
    return add_outer(sums, a, b);
}

fn store_rows(place: Place, row: u32, column: u32, k: u32, sums: Rows) {
    store_row(place, row, column, k, sums[0]);
    if row + 1u < p.m {
        store_row(place, row + 1u, column, k, sums[1]);
    }
    if row + 2u < p.m {
        store_row(place, row + 2u, column, k, sums[2]);
    }
    if row + 3u < p.m {
        store_row(place, row + 3u, column, k, sums[3]);
    }
}
