// Cells of attention as they are, and pairs for scratch memory.

fn unpacked(cell: vec4<f32>) -> vec4<f32> {
    return cell;
}

fn packed(values: vec4<f32>) -> vec4<f32> {
    return values;
}

alias Pair = vec2<f32>;

fn unpacked_pair(pair: Pair) -> vec2<f32> {
    return pair;
}

fn packed_pair(values: vec2<f32>) -> Pair {
    return values;
}
