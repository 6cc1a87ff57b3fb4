// Pairs for scratch memory in 64-bit words, which some devices gather and scatter at half the cost.

alias Pair = u64;

fn unpacked_pair(pair: Pair) -> vec2<f32> {
    return bitcast<vec2<f32>>(vec2<u32>(u32(pair), u32(pair >> 32u)));
}

fn packed_pair(values: vec2<f32>) -> Pair {
    let halves = bitcast<vec2<u32>>(values);
    return u64(halves.x) | (u64(halves.y) << 32u);
}
