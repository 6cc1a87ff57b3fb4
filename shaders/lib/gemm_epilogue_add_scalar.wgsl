// Hook epilogue for any alignment: C = D + alpha * A * B, where D is a residual or a bias (row stride 0).

@group(0) @binding(3) var<storage, read> d: array<f32>;

fn epilogue(sum: vec4<f32>, c_at: u32, d_at: u32, last: u32) -> vec4<f32> {
    return sum + vec4<f32>(d[d_at], d[d_at + min(1u, last)], d[d_at + min(2u, last)], d[d_at + min(3u, last)]);
}
