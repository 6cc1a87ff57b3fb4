// 16-bit floats, bit by bit: what a device's own conversion does to ties and to large numbers is its own affair.

// The nearest 16-bit floats, ties to even. Finite numbers beyond the largest one become that; infinities and what is not a
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
