// out[i] = source[i]: a measure of memory bandwidth, and of nothing else.   source, out (count)
//
// One workgroup copies a block of LANES * 4 cells, each invocation every LANES-th of them, so that neighbours in a workgroup
// access neighbours in memory.
//
// Bindings: 0 Params, 1 source, 2 out. Knobs (header): LANES, the size of a workgroup. Workgroup memory: none.

struct Params {
    // Cells of four floats; a multiple of LANES * 4.
    count: u32,
    // Width of the grid the workgroups are folded into.
    grid_x: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = (group.x + group.y * p.grid_x) * LANES * 4u + lane;
    if first >= p.count {
        return;
    }
    let a = source[first];
    let b = source[first + LANES];
    let c = source[first + 2u * LANES];
    let d = source[first + 3u * LANES];
    out[first] = a;
    out[first + LANES] = b;
    out[first + 2u * LANES] = c;
    out[first + 3u * LANES] = d;
}
