// The entry point of kernels whose workgroups are one subgroup: each computes the tile of its own number.
//
// Knobs: LANES. Hooks: tile.

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let id = group.x + group.y * p.grid_x;
    if id < p.tiles {
        tile(id, lane);
    }
}
