// The epilogue of four finished sums, of which those up to the `last`-th exist.
fn finish_c(place: Place, row: u32, column: u32, last: u32, value: vec4<f32>) -> vec4<f32> {
    var finished = value;
    finished.x = epilogue(value.x, at_of(place, row, column));
    if last >= 1u {
        finished.y = epilogue(value.y, at_of(place, row, column + 1u));
    }
    if last >= 2u {
        finished.z = epilogue(value.z, at_of(place, row, column + 2u));
    }
    if last >= 3u {
        finished.w = epilogue(value.w, at_of(place, row, column + 3u));
    }
    return finished;
}
