// The nearest number of a narrower type, ties to even, and four of them as that type is stored. F and U are f32 and u32, or
// vec4s of them.

fn rounded_bf16(x: F) -> F {
    let bits = bitcast<U>(x);
    let nearest = (bits + U(0x7fffu) + ((bits >> U(16u)) & U(1u))) & U(0xffff0000u);
    // What is not a number stays so.
    return select(bitcast<F>(nearest), x, (bits & U(0x7fffffffu)) > U(0x7f800000u));
}

// Finite numbers beyond the range become the largest one. Below 2^-14 the results are multiples of 2^-24.
fn rounded_f16(x: F) -> F {
    let bits = bitcast<U>(x);
    let nearest = bitcast<F>((bits + U(0xfffu) + ((bits >> U(13u)) & U(1u))) & U(0xffffe000u));
    let small = round(x * F(16777216.0)) * F(5.9604644775390625e-8);
    let result = select(clamp(nearest, F(-65504.0), F(65504.0)), small, abs(x) < F(6.103515625e-5));
    return select(result, x, (bits & U(0x7f800000u)) == U(0x7f800000u));
}

fn packed_bf16(x: vec4<f32>) -> vec2<u32> {
    let bits = bitcast<vec4<u32>>(x);
    return (bits.xz >> vec2<u32>(16u)) | (bits.yw & vec2<u32>(0xffff0000u));
}

fn packed_f16(x: vec4<f32>) -> vec2<u32> {
    return vec2<u32>(pack2x16float(x.xy), pack2x16float(x.zw));
}
