// Rotary position embedding for software devices, all f32: of every head, the pairs (x[e], x[e + E/2]) are rotated by the angles of
// their position.   x (B, T, H, E) with strides, cos and sin (T, E/2), out (B, T, H, E) dense
//
//   out[e] = x[e] * cos[e] - x[e + E/2] * sin[e],   out[e + E/2] = x[e + E/2] * cos[e] + x[e] * sin[e]
//
// One workgroup is one SIMD vector; a lane rotates four pairs at a time, so that everything is read once. What generated code does
// instead reads x twice and selects, since it computes out element by element.
//
// Bindings: 0 Params, 1 x, 2 cos, 3 sin, 4 out. Knobs (header): Cell, LANES, ROWS. Hooks: unpacked, packed. No workgroup memory, no
// subgroup operations.

struct Params {
    // T.
    positions: u32,
    // Cells of all heads' first halves, and of one's. All offsets and strides count cells of four elements, too.
    row_cells: u32,
    half_cells: u32,
    // Factor of sin: -1 turns backwards.
    sign: f32,
    x_offset: u32,
    x_batch: u32,
    x_row: u32,
    x_head: u32,
    // Tiles of ROWS positions that a batch row has, and that there are; the width of the grid that workgroups are folded into.
    row_tiles: u32,
    tiles: u32,
    grid_x: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Cell>;
@group(0) @binding(2) var<storage, read> cos_table: array<Cell>;
@group(0) @binding(3) var<storage, read> sin_table: array<Cell>;
@group(0) @binding(4) var<storage, read_write> out: array<Cell>;

fn tile(id: u32, lane: u32) {
    let batch = id / p.row_tiles;
    let start = id % p.row_tiles * ROWS;
    let end = min(start + ROWS, p.positions);
    for (var i = lane; i < p.row_cells; i += LANES) {
        // Divided here, not with every position: such a device divides one lane after the other.
        let head = i / p.half_cells;
        let cell = i % p.half_cells;
        let from_x = p.x_offset + batch * p.x_batch + head * p.x_head + cell;
        let to_out = 2u * (batch * p.positions * p.row_cells + head * p.half_cells) + cell;
        for (var position = start; position < end; position++) {
            let source = from_x + position * p.x_row;
            let first = unpacked(x[source]);
            let second = unpacked(x[source + p.half_cells]);
            let cosine = unpacked(cos_table[position * p.half_cells + cell]);
            let sine = p.sign * unpacked(sin_table[position * p.half_cells + cell]);
            let at = to_out + 2u * position * p.row_cells;
            out[at] = packed(first * cosine - second * sine);
            out[at + p.half_cells] = packed(second * cosine + first * sine);
        }
    }
}
