// Hook load_a where all is aligned to four elements: cell `at` of A, or zero where nothing is `valid`.

@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;

fn load_a(at: u32, valid: u32) -> vec4<f32> {
    if valid == 0u {
        return vec4<f32>();
    }
    return a[at];
}
