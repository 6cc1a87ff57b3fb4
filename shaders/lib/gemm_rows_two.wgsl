// The panel's rows of A and C, two at a time: A is stored by columns, and a 64-bit word holds two neighbours of one.

const ROWS: u32 = 2u;
alias Rows = mat2x4<f32>;

// A[row .. row + 2, k .. k + 4]; column i is row + i of A.
fn load_rows(base: u32, row: u32, k: u32) -> Rows {
    let last = last_below(row, p.m);
    let at = four_rows(base, p.a_row, k, p.k) + row / CELL;
    return transpose(mat4x2<f32>(
        load_a_pair(at.x, row, last),
        load_a_pair(at.y, row, last),
        load_a_pair(at.z, row, last),
        load_a_pair(at.w, row, last),
    ));
}

fn add_products(sums: Rows, a: Rows, b: mat4x4<f32>) -> Rows {
    return Rows(add_product(sums[0], a[0], b), add_product(sums[1], a[1], b));
}

fn store_rows(place: Place, row: u32, column: u32, k: u32, sums: Rows) {
    store_row(place, row, column, k, sums[0]);
    if row + 1u < p.m {
        store_row(place, row + 1u, column, k, sums[1]);
    }
}
