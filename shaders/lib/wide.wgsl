// Four floats as two 64-bit words.

fn unpacked(words: vec2<u64>) -> vec4<f32> {
    let halves = vec4<u32>(u32(words.x), u32(words.x >> 32u), u32(words.y), u32(words.y >> 32u));
    return bitcast<vec4<f32>>(halves);
}

fn packed(values: vec4<f32>) -> vec2<u64> {
    let halves = bitcast<vec4<u32>>(values);
    return vec2<u64>(
        u64(halves.x) | (u64(halves.y) << 32u),
        u64(halves.z) | (u64(halves.w) << 32u),
    );
}
