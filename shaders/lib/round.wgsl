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

// The nearest 16-bit floats, bit by bit, as a device's own conversion may treat ties, large and small numbers as it likes: ties to even. Finite numbers beyond the largest one become that; infinities and what is not a
// number stay so.
fn half_bits(x: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(x);
    let magnitude = bits & vec4<u32>(0x7fffffffu);
    let bounded = min(magnitude, vec4<u32>(0x477fe000u));
    // From 2^-14 on: another exponent bias, and 13 bits less.
    let normal = (bounded - vec4<u32>(0x38000000u) + vec4<u32>(0xfffu) + ((bounded >> vec4<u32>(13u)) & vec4<u32>(1u)));
    // Below: beside 0.5, the last bit of a 32-bit float counts 2^-24, as that of a small 16-bit one.
    let small = bitcast<vec4<u32>>(bitcast<vec4<f32>>(min(bounded, vec4<u32>(0x38800000u))) + vec4<f32>(0.5));
    let finite = select(normal >> vec4<u32>(13u), small - vec4<u32>(0x3f000000u), bounded < vec4<u32>(0x38800000u));
    let special = select(vec4<u32>(0x7c00u), vec4<u32>(0x7e00u), magnitude > vec4<u32>(0x7f800000u));
    let rounded = select(finite, special, magnitude >= vec4<u32>(0x7f800000u));
    return rounded | ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
}

// Rounds as well.
fn packed_f16(x: vec4<f32>) -> vec2<u32> {
    let half = half_bits(x);
    return half.xz | (half.yw << vec2<u32>(16u));
}

// The nearest 8-bit float of a number from 0 to 1, ties to even; `bias` is what is added to its exponent.
fn rounded_f8(x: F, bias: u32) -> F {
    let inside = clamp(x, F(0.0), F(1.0));
    let bits = bitcast<U>(inside);
    let normal = bitcast<F>((bits + U(0x7ffffu) + ((bits >> U(20u)) & U(1u))) & U(0xfff00000u));
    let small = round(inside * F(bitcast<f32>((129u + bias) << 23u))) * F(bitcast<f32>((125u - bias) << 23u));
    return select(normal, small, inside < F(bitcast<f32>((128u - bias) << 23u)));
}

fn rounded_f8s(x: F) -> F {
    let magnitude = rounded_f8(abs(x), 15u);
    return select(magnitude, -magnitude, x < F(0.0));
}

fn rounded_f8u(x: F) -> F {
    return rounded_f8(x, 31u);
}

// The codes of four rounded numbers.
fn packed_f8(x: vec4<f32>, bias: u32) -> vec4<u32> {
    let normal = (bitcast<vec4<u32>>(x) >> vec4<u32>(20u)) - vec4<u32>((127u - bias) << 3u);
    let small = vec4<u32>(x * bitcast<f32>((129u + bias) << 23u));
    return select(normal, small, x < vec4<f32>(bitcast<f32>((128u - bias) << 23u)));
}

fn packed_bytes(bytes: vec4<u32>) -> u32 {
    return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}

fn packed_f8s(x: vec4<f32>) -> u32 {
    let sign = select(vec4<u32>(0u), vec4<u32>(128u), x < vec4<f32>(0.0));
    return packed_bytes(packed_f8(abs(x), 15u) | sign);
}

fn packed_f8u(x: vec4<f32>) -> u32 {
    return packed_bytes(packed_f8(x, 31u));
}
