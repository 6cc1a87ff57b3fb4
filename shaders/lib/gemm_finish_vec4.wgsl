// The epilogue of a cell of finished sums; a cell is never cut, so `last` is always 3.
fn finish_c(place: Place, row: u32, column: u32, last: u32, value: vec4<f32>) -> vec4<f32> {
    return epilogue(value, at_of(place, row, column));
}
