// out[index[i], :] = src[i, :]; an index that points nowhere is skipped.   src (count, D), index (count), out (rows, D)
//
// No two indices may be equal, and rows that no index names keep their value. One workgroup copies one row, 64 cells at a
// time.
//
// Bindings: 0 Params, 1 index, 2 src, 3 out. Hook: load_source. Knobs (header): Cell, the unit of copying. Workgroup memory: none.

@group(0) @binding(3) var<storage, read_write> out: array<Cell>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group.x + group.y * p.grid_x;
    if i >= p.count {
        return;
    }
    let row = index[i];
    if row >= p.rows {
        return;
    }
    for (var cell = lane; cell < p.cells; cell += 64u) {
        out[row * p.cells + cell] = load_source(i * p.cells + cell);
    }
}
