// Hooks load_v, store_out: only the log-sum-exp is wanted.

const NEEDS_OUT = false;

fn load_v(at: u32) -> vec4<f32> {
    return vec4<f32>();
}

fn store_out(at: u32, value: vec4<f32>) {}
