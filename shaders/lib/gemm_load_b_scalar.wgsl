// Hook load_b for any alignment: four consecutive elements of B from cell `at` on; those beyond the `last`-th (0 .. 3) are
// not read and repeat it.

@group(0) @binding(B_BINDING) var<storage, read> b: array<f32>;

fn load_b(at: u32, last: u32) -> vec4<f32> {
    return vec4<f32>(b[at], b[at + min(1u, last)], b[at + min(2u, last)], b[at + min(3u, last)]);
}
