// Hook epilogue: C = C + alpha * A * B.

fn epilogue(sum: vec4<f32>, c_at: u32, d_at: u32, last: u32) -> vec4<f32> {
    return sum + load_c(c_at, last);
}
