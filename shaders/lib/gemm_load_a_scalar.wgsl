// Hook load_a for any alignment: four consecutive elements of A from cell `at` on; those beyond the `last`-th (0 .. 3) are
// not read and repeat it.

@group(0) @binding(A_BINDING) var<storage, read> a: array<f32>;

fn load_a(at: u32, last: u32) -> vec4<f32> {
    return vec4<f32>(a[at], a[at + min(1u, last)], a[at + min(2u, last)], a[at + min(3u, last)]);
}
