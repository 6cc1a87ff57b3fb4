// The panel's rows of A and C, one at a time: A is stored by rows.

const ROWS: u32 = 1u;
alias Rows = vec4<f32>;

// A[row, k .. k + 4]
fn load_rows(base: u32, row: u32, k: u32) -> Rows {
    let column = clamped(k, p.k);
    return load_a(base + row * p.a_row + column / CELL, last_below(column, p.k));
}

fn add_products(sums: Rows, a: Rows, b: mat4x4<f32>) -> Rows {
    return add_product(sums, a, b);
}

fn store_rows(place: Place, row: u32, column: u32, k: u32, sums: Rows) {
    store_row(place, row, column, k, sums);
}
