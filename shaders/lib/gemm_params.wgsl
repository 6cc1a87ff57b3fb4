// Parameters of one GEMM dispatch, C[b, m, n] = alpha * sum_k A[b, m, k] * B[b, k, n] + epilogue.
//
// A buffer is an array of cells of CELL consecutive floats (1 or 4). Offsets and strides count cells, extents (m, n, k)
// count elements. A batch index b is (b0, b1, b2) with b2 fastest; a stride of 0 broadcasts.

struct Params {
    m: u32,
    n: u32,
    k: u32,
    alpha: f32,
    a_offset: u32,
    a_row: u32,
    a_batch0: u32,
    a_batch1: u32,
    a_batch2: u32,
    b_offset: u32,
    b_row: u32,
    b_batch0: u32,
    b_batch1: u32,
    b_batch2: u32,
    c_offset: u32,
    c_row: u32,
    c_batch0: u32,
    c_batch1: u32,
    c_batch2: u32,
    d_offset: u32,
    d_row: u32,
    d_batch0: u32,
    d_batch1: u32,
    d_batch2: u32,
    // Extents of the two inner batch dimensions.
    batch1: u32,
    batch2: u32,
    // C is cut into row_tiles x column_tiles tiles of tile_rows rows; one workgroup computes one tile.
    tile_rows: u32,
    row_tiles: u32,
    column_tiles: u32,
    // Workgroups that have work, and the width of the grid they are folded into.
    tiles: u32,
    grid_x: u32,
}

@group(0) @binding(0) var<uniform> p: Params;

// Where one workgroup works: the cell at which each operand's batch starts, and its tile's row and column number.
struct Place {
    a: u32,
    b: u32,
    c: u32,
    d: u32,
    row_tile: u32,
    column_tile: u32,
}

// The place of tile `id`. Columns vary fastest, so that neighbouring workgroups share rows of A.
fn place_of(id: u32) -> Place {
    let column_tile = id % p.column_tiles;
    let stripe = id / p.column_tiles;
    let row_tile = stripe % p.row_tiles;
    let batch = stripe / p.row_tiles;
    let b2 = batch % p.batch2;
    let outer = batch / p.batch2;
    let b1 = outer % p.batch1;
    let b0 = outer / p.batch1;
    return Place(
        p.a_offset + b0 * p.a_batch0 + b1 * p.a_batch1 + b2 * p.a_batch2,
        p.b_offset + b0 * p.b_batch0 + b1 * p.b_batch1 + b2 * p.b_batch2,
        p.c_offset + b0 * p.c_batch0 + b1 * p.c_batch1 + b2 * p.c_batch2,
        p.d_offset + b0 * p.d_batch0 + b1 * p.d_batch1 + b2 * p.d_batch2,
        row_tile,
        column_tile,
    );
}

// The first of four elements from `at` on, moved back to a cell below `end` where it is not below it already.
fn clamped(at: u32, end: u32) -> u32 {
    return min(at, (end - 1u) / CELL * CELL);
}

// Which of the four elements from `at` on is the last below `end`; `at` is.
fn last_below(at: u32, end: u32) -> u32 {
    return min(end - 1u - at, 3u);
}
