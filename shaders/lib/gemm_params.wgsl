// Parameters of one GEMM dispatch, C[b, m, n] = epilogue(alpha * sum_k A[b, m, k] * B[b, k, n]), and what follows from them.
//
// A buffer is an array of cells of CELL consecutive elements (1 or 4). Offsets and strides count cells, extents (m, n, k)
// count elements. A batch index b is (b0, b1, b2) with b2 fastest; a stride of 0 broadcasts.
//
// struct Params is generated: m, n, k, alpha; of each operand x: x_offset, x_row (from one stored row to the next) and
// x_batch0 .. x_batch2; a_scales and b_scales, the words at which the scales of what A and B are stored as begin; batch1 and batch2, the extents of the two inner batch dimensions. C is cut into row_tiles x column_tiles
// tiles of tile_rows rows; one workgroup computes one tile; tiles is the number of workgroups that have work, grid_x the
// width of the grid they are folded into. Last come the hook's words h0, h1, ..

@group(0) @binding(0) var<uniform> p: Params;

// Where one workgroup works: the cell at which each operand's batch starts, and its tile's row and column number.
struct Place {
    a: u32,
    b: u32,
    c: u32,
    batch: vec3<u32>,
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
        vec3<u32>(b0, b1, b2),
        row_tile,
        column_tile,
    );
}

// Which cell of C an epilogue is about: batch index, row, column (in cells), and its number in a densely stored C.
struct At {
    batch: vec3<u32>,
    row: u32,
    column: u32,
    index: u32,
}

// The cell of C with the element at `row` and `column`.
fn at_of(place: Place, row: u32, column: u32) -> At {
    let matrix = (place.batch.x * p.batch1 + place.batch.y) * p.batch2 + place.batch.z;
    let rows = select(p.m, p.n, C_TRANSPOSED);
    let columns = select(p.n, p.m, C_TRANSPOSED);
    let index = (matrix * rows + row) * (columns / CELL) + column / CELL;
    return At(place.batch, row, column / CELL, index);
}

// The first of four elements from `at` on, moved back to a cell below `end` where it is not below it already.
fn clamped(at: u32, end: u32) -> u32 {
    return min(at, (end - 1u) / CELL * CELL);
}

// Which of the four elements from `at` on is the last below `end`; `at` is.
fn last_below(at: u32, end: u32) -> u32 {
    return min(end - 1u - at, 3u);
}
