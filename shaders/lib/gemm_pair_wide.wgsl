// Elements `first` (even) and `first + 1` of a stored row of A, in cell `at`: one 64-bit word of it. For the mask see load_a.
fn load_a_pair(at: u32, first: u32, last: u32) -> vec2<f32> {
    let word = a[at & 0x07ffffffu][first / 2u % 2u];
    return bitcast<vec2<f32>>(vec2<u32>(u32(word), u32(word >> 32u)));
}
