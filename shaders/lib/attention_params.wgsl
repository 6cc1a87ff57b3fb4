// Parameters and operands that all kernels of attention share.
//
// Operands are cells of four floats; an element is found by batch row, position, head and cell, the last one contiguous.
// Results are stored densely: (B, T, H, E), (B, S, G, E) and (B, T, H). CELLS (header) is E / 4, Cell the type of a cell.

struct Params {
    // T and S.
    queries: u32,
    keys: u32,
    // H and G: query head h reads key head h / (H/G).
    heads: u32,
    groups: u32,
    // Query t sees keys 0 ..= t + ahead.
    ahead: u32,
    scale: f32,
    q_offset: u32,
    q_batch: u32,
    q_row: u32,
    q_head: u32,
    k_offset: u32,
    k_batch: u32,
    k_row: u32,
    k_head: u32,
    v_offset: u32,
    v_batch: u32,
    v_row: u32,
    v_head: u32,
    dy_offset: u32,
    dy_batch: u32,
    dy_row: u32,
    dy_head: u32,
    // Each head of each batch row is cut into this many tiles; one workgroup computes one tile.
    row_tiles: u32,
    // Workgroups that have work, and the width of the grid they are folded into.
    tiles: u32,
    grid_x: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<Cell>;
@group(0) @binding(2) var<storage, read> k: array<Cell>;

// Far below any score, and finite: exp of the difference is exactly zero.
const HIDDEN = -1e30;

// What one workgroup works on. In the kernels of queries `head` is a query head, in those of keys a key head.
struct Place {
    batch: u32,
    head: u32,
    tile: u32,
}

fn place_of(id: u32, heads: u32) -> Place {
    let row = id / p.row_tiles;
    return Place(row / heads, row % heads, id % p.row_tiles);
}

fn key_head(head: u32) -> u32 {
    return head / (p.heads / p.groups);
}

// Where the rows of one head of an operand begin.
fn q_base(batch: u32, head: u32) -> u32 {
    return p.q_offset + batch * p.q_batch + head * p.q_head;
}

fn k_base(batch: u32, group: u32) -> u32 {
    return p.k_offset + batch * p.k_batch + group * p.k_head;
}

fn v_base(batch: u32, group: u32) -> u32 {
    return p.v_offset + batch * p.v_batch + group * p.v_head;
}

fn dy_base(batch: u32, head: u32) -> u32 {
    return p.dy_offset + batch * p.dy_batch + head * p.dy_head;
}

// The first cell of a row of a result, and the element of a result with one number a row.
fn query_cell(batch: u32, head: u32, row: u32) -> u32 {
    return query_row(batch, head, row) * CELLS;
}

fn query_row(batch: u32, head: u32, row: u32) -> u32 {
    return (batch * p.queries + row) * p.heads + head;
}

fn key_cell(batch: u32, group: u32, row: u32) -> u32 {
    return ((batch * p.keys + row) * p.groups + group) * CELLS;
}
