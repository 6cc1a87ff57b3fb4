// out[i, :] = table[index[i], :], and 0 where index[i] points nowhere.   table (rows, D), index (count), out (count, D)
//
// One workgroup copies one row, 64 cells at a time.
//
// Bindings: 0 Params, 1 index, 2 table, 3 out. Hook: load_source. Knobs (header): Cell, the unit of copying. Workgroup memory: none.

@group(0) @binding(3) var<storage, read_write> out: array<Cell>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group.x + group.y * p.grid_x;
    if i >= p.count {
        return;
    }
    let row = index[i];
    for (var cell = lane; cell < p.cells; cell += 64u) {
        var value = Cell();
        if row < p.rows {
            value = load_source(row * p.cells + cell);
        }
        out[i * p.cells + cell] = value;
    }
}
