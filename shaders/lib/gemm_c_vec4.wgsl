// C where all is aligned to four elements: access to cell `at`, which exists if anything is `valid`.

@group(0) @binding(C_BINDING) var<storage, read_write> c: array<vec4<f32>>;

fn load_c(at: u32, valid: u32) -> vec4<f32> {
    if valid == 0u {
        return vec4<f32>();
    }
    return c[at];
}

fn store_c(at: u32, valid: u32, value: vec4<f32>) {
    if valid > 0u {
        c[at] = value;
    }
}
