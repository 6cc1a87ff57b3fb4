// Hook load_b for any alignment: four consecutive elements of B from cell `at` on, zero from the `valid`-th on.

@group(0) @binding(2) var<storage, read> b: array<f32>;

fn load_b(at: u32, valid: u32) -> vec4<f32> {
    if valid == 0u {
        return vec4<f32>();
    }
    let last = valid - 1u;
    let value = vec4<f32>(b[at], b[at + min(1u, last)], b[at + min(2u, last)], b[at + min(3u, last)]);
    return select(vec4<f32>(), value, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(valid));
}
