// Reals that are stored in fewer than 32 bits. `at` is an element's position in its tensor; a function that ends in `_four`
// gives four neighbours, the first of them at a multiple of four.

fn stored_bf16(word: u32, at: u32) -> f32 {
    return bitcast<f32>(select(word << 16u, word & 0xffff0000u, (at & 1u) == 1u));
}

fn stored_bf16_four(words: vec2<u32>) -> vec4<f32> {
    let low = words << vec2<u32>(16u);
    let high = words & vec2<u32>(0xffff0000u);
    return bitcast<vec4<f32>>(vec4<u32>(low.x, high.x, low.y, high.y));
}

fn stored_f16(word: u32, at: u32) -> f32 {
    let pair = unpack2x16float(word);
    return select(pair.x, pair.y, (at & 1u) == 1u);
}

fn stored_f16_four(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

fn stored_q8(word: u32, at: u32, scale: f32) -> f32 {
    return f32(bitcast<i32>(word << (24u - 8u * (at & 3u))) >> 24u) * scale;
}

fn stored_q8_four(word: u32, scale: f32) -> vec4<f32> {
    let bytes = bitcast<vec4<i32>>(vec4<u32>(word << 24u, word << 16u, word << 8u, word)) >> vec4<u32>(24u);
    return vec4<f32>(bytes) * scale;
}

fn stored_nf4(word: u32, at: u32, scale: f32) -> f32 {
    return stored_nf4_values(vec4<u32>((word >> (4u * ((at & 7u) ^ 1u))) & 15u)).x * scale;
}

// `cell` counts fours of elements: half a word each.
fn stored_nf4_four(word: u32, cell: u32, scale: f32) -> vec4<f32> {
    let half = word >> (16u * (cell & 1u));
    return stored_nf4_values(vec4<u32>(half >> 4u, half, half >> 12u, half >> 8u) & vec4<u32>(15u)) * scale;
}

// The numbers of four codes. Choosing bit by bit is arithmetic alone, without a table in memory.
fn stored_nf4_values(codes: vec4<u32>) -> vec4<f32> {
    let bit0 = (codes & vec4<u32>(1u)) != vec4<u32>(0u);
    let bit1 = (codes & vec4<u32>(2u)) != vec4<u32>(0u);
    let bit2 = (codes & vec4<u32>(4u)) != vec4<u32>(0u);
    let bit3 = (codes & vec4<u32>(8u)) != vec4<u32>(0u);
    let v0 = stored_choice(bit0, -1.0, -0.6961928);
    let v1 = stored_choice(bit0, -0.52507305, -0.3949175);
    let v2 = stored_choice(bit0, -0.28444138, -0.18477343);
    let v3 = stored_choice(bit0, -0.091050036, 0.0);
    let v4 = stored_choice(bit0, 0.0795803, 0.1609302);
    let v5 = stored_choice(bit0, 0.2461123, 0.33791524);
    let v6 = stored_choice(bit0, 0.44070983, 0.562617);
    let v7 = stored_choice(bit0, 0.72295684, 1.0);
    let low = select(select(v0, v1, bit1), select(v2, v3, bit1), bit2);
    let high = select(select(v4, v5, bit1), select(v6, v7, bit1), bit2);
    return select(low, high, bit3);
}

fn stored_choice(bit: vec4<bool>, no: f32, yes: f32) -> vec4<f32> {
    return select(vec4<f32>(no), vec4<f32>(yes), bit);
}

// Four 8-bit floats; `bias` is what is added to their exponents.
fn stored_f8_four(codes: vec4<u32>, bias: u32) -> vec4<f32> {
    let normal = bitcast<vec4<f32>>((codes << vec4<u32>(20u)) + vec4<u32>((127u - bias) << 23u));
    let small = vec4<f32>(codes) * bitcast<f32>((125u - bias) << 23u);
    return select(normal, small, codes < vec4<u32>(8u));
}

fn stored_f8s_four(word: u32) -> vec4<f32> {
    let bytes = vec4<u32>(word, word >> 8u, word >> 16u, word >> 24u);
    let magnitude = stored_f8_four(bytes & vec4<u32>(127u), 15u);
    return select(magnitude, -magnitude, (bytes & vec4<u32>(128u)) != vec4<u32>(0u));
}

fn stored_f8u_four(word: u32) -> vec4<f32> {
    return stored_f8_four(vec4<u32>(word, word >> 8u, word >> 16u, word >> 24u) & vec4<u32>(255u), 31u);
}
