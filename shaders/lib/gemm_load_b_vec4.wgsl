// Hook load_b where all is aligned to four elements: cell `at` of B; a cell is never cut, so `last` is always 3.

@group(0) @binding(B_BINDING) var<storage, read> b: array<vec4<f32>>;

fn load_b(at: u32, last: u32) -> vec4<f32> {
    return b[at];
}
