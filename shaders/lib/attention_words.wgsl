// Pairs for scratch memory as they are.

alias Pair = vec2<f32>;

fn unpacked_pair(pair: Pair) -> vec2<f32> {
    return pair;
}

fn packed_pair(values: vec2<f32>) -> Pair {
    return values;
}
