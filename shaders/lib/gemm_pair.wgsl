// Elements `first` (even) and `first + 1` of a stored row of A, from cell `at` on; elements up to the `last`-th exist.
fn load_a_pair(at: u32, first: u32, last: u32) -> vec2<f32> {
    let four = load_a(at, last);
    return select(four.xy, four.zw, first % CELL == 2u);
}
