// Hook load_b where all is aligned to four elements: cell `at` of B, or zero where nothing is `valid`.

@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;

fn load_b(at: u32, valid: u32) -> vec4<f32> {
    if valid == 0u {
        return vec4<f32>();
    }
    return b[at];
}
