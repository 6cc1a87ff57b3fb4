// out[r, :] = sum over i with index[i] == r of src[i, :], in the order of i.   src (count, D), index (count), out (rows, D)
//
// One workgroup owns one row of out and scans the list of indices once: equal indices meet in one invocation, in order, so
// the result is the same bits every time and needs no atomics. Every row of out is written. The scan costs rows * count
// reads of index, which all lanes share.
//
// Bindings: 0 Params, 1 index, 2 src, 3 out. Hook: load_source. Knobs (header): Cell, the unit of adding. Workgroup memory: none.

@group(0) @binding(3) var<storage, read_write> out: array<Cell>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.x + group.y * p.grid_x;
    if row >= p.rows {
        return;
    }
    for (var cell = lane; cell < p.cells; cell += 64u) {
        out[row * p.cells + cell] = Cell();
    }
    for (var i = 0u; i < p.count; i++) {
        if index[i] == row {
            for (var cell = lane; cell < p.cells; cell += 64u) {
                out[row * p.cells + cell] += load_source(i * p.cells + cell);
            }
        }
    }
}
