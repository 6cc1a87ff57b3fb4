// Matrices rounded to 16-bit floats and filled up with zeros to whole tiles of EDGE x EDGE elements, tile after tile:
//
//   out[b, i, j, row, column] = x[b, EDGE i + row, EDGE j + column] within x, 0 beyond            b = (b0, b1, b2)
//
// x is a strided view, also across its columns; out is dense. An invocation computes eight neighbours of a row.
//
// Bindings: 0 parameters, 1 x, 2 out. Hook: load_x(at, column) reads four neighbours. Knob: EDGE.

// Rows and columns of x, and tiles of each; offset and strides of x in elements; batch extents; the word at which the scales of
// x begin; the number of invocations that have work, and the width of the grid.
struct Params {
    rows: u32,
    columns: u32,
    row_tiles: u32,
    column_tiles: u32,
    offset: u32,
    row: u32,
    column: u32,
    batch_stride0: u32,
    batch_stride1: u32,
    batch_stride2: u32,
    batch1: u32,
    batch2: u32,
    scales: u32,
    count: u32,
    grid_x: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<u32>>;

// Four neighbours from `column` on of the row at `base`, as 16-bit floats in two words.
fn packed_four(base: u32, column: u32) -> vec2<u32> {
    if column >= p.columns {
        return vec2<u32>();
    }
    let exists = vec4<u32>(column) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.columns);
    return packed_f16(select(vec4<f32>(), load_x(base + column * p.column, column), exists));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let id = 64u * (group.x + group.y * p.grid_x) + thread;
    if id >= p.count {
        return;
    }
    let place = id / (EDGE / 8u);
    let tile = place / EDGE;
    let column = EDGE * (tile % p.column_tiles) + 8u * (id % (EDGE / 8u));
    let stripe = tile / p.column_tiles;
    let row = EDGE * (stripe % p.row_tiles) + place % EDGE;
    let batch = stripe / p.row_tiles;
    var words = vec4<u32>();
    if row < p.rows {
        let outer = batch / p.batch2;
        let base = p.offset + row * p.row + (outer / p.batch1) * p.batch_stride0 + (outer % p.batch1) * p.batch_stride1
            + (batch % p.batch2) * p.batch_stride2;
        words = vec4<u32>(packed_four(base, column), packed_four(base, column + 4u));
    }
    out[id] = words;
}
