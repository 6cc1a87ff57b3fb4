// Hook epilogue where all is aligned to four elements: C = D + alpha * A * B, where D is a residual or a bias (row
// stride 0).

@group(0) @binding(3) var<storage, read> d: array<vec4<f32>>;

fn epilogue(sum: vec4<f32>, c_at: u32, d_at: u32, last: u32) -> vec4<f32> {
    return sum + d[d_at];
}
