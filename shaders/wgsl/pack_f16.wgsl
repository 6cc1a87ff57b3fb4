// Matrices rounded to 16-bit floats and filled up with zeros to whole tiles of EDGE x EDGE elements, tile after tile:
//
//   out[b, i, j, row, column] = x[b, EDGE i + row, EDGE j + column] within x, 0 beyond            b = (b0, b1, b2)
//
// x is a strided view, also across its columns; out is dense. A workgroup packs EDGE rows of 64 columns, an invocation eight
// neighbours of a row: so both sides are accessed in runs of 128 bytes and more.
//
// Bindings: 0 parameters, 1 x, 2 out. Hook: load_x(at, column) reads four neighbours. Knob: EDGE.

// Rows and columns of x, and tiles of each; offset and strides of x in elements; batch extents; the word at which the scales of
// x begin; the number of workgroups that have work, and the width of the grid.
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

@compute @workgroup_size(8u * EDGE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let id = group.x + group.y * p.grid_x;
    if id >= p.count {
        return;
    }
    let blocks = (p.column_tiles * EDGE + 63u) / 64u;
    let column = 64u * (id % blocks) + 8u * (thread % 8u);
    let stripe = id / blocks;
    let row = EDGE * (stripe % p.row_tiles) + thread / 8u;
    let batch = stripe / p.row_tiles;
    let tile = stripe * p.column_tiles + column / EDGE;
    if column >= p.column_tiles * EDGE {
        return;
    }
    var words = vec4<u32>();
    if row < p.rows {
        let outer = batch / p.batch2;
        let base = p.offset + row * p.row + (outer / p.batch1) * p.batch_stride0 + (outer % p.batch1) * p.batch_stride1
            + (batch % p.batch2) * p.batch_stride2;
        words = vec4<u32>(packed_four(base, column), packed_four(base, column + 4u));
    }
    out[(tile * EDGE + thread / 8u) * (EDGE / 8u) + column % EDGE / 8u] = words;
}
