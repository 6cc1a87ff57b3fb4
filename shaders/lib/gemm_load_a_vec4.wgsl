// Hook load_a where all is aligned to four elements: cell `at` of A; a cell is never cut, so `last` is always 3.

@group(0) @binding(A_BINDING) var<storage, read> a: array<vec4<f32>>;

fn load_a(at: u32, last: u32) -> vec4<f32> {
    return a[at];
}
