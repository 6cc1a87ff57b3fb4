// Hooks load_v, store_out: the result of attention is wanted.

const NEEDS_OUT = true;

@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

fn load_v(at: u32) -> vec4<f32> {
    return v[at];
}

fn store_out(at: u32, value: vec4<f32>) {
    out[at] = value;
}
