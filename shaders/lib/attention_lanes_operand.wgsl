// What the software-device kernels of attention do with one operand. The text is linked once for each that a kernel has, with
// its name (q, k, v or dy) in place of $x, since drivers take long to throw away what other operands would need.
//
// Hooks: load_$x. For the rest see attention_lanes.wgsl.

// No binding has 2^27 cells (2 GiB): the mask only tells the driver's compiler that no address has a sign, which spares it
// half of the comparison with the bounds.
fn cell_$x(at: u32) -> vec4<f32> {
    return unpacked(load_$x(at & 0x07ffffffu));
}

// One cell of the rows of a lane, times a factor.
fn quad_$x(at: vec3<u32>, factor: f32) -> Quad {
    return factor * transpose(mat3x4<f32>(cell_$x(at.x), cell_$x(at.y), cell_$x(at.z)));
}

// The rows of a lane, times a factor.
fn slab_$x(at: vec3<u32>, factor: f32) -> Slab {
    var slab: Slab;
    slab.c$c = quad_$x(at + $c, factor);
    return slab;
}

// Products of the rows of a lane with the row at `at`.
fn dots_$x(slab: Slab, at: u32) -> Rows {
    var sums = Rows();
    sums += slab.c$c * cell_$x(at + $c);
    return sums;
}

// The cell at `at` and those in the three rows behind it, of which none is behind the cell `last`; column i is element i of all
// four.
fn four_$x(at: u32, stride: u32, last: u32) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(
        cell_$x(min(at, last)),
        cell_$x(min(at + stride, last)),
        cell_$x(min(at + 2u * stride, last)),
        cell_$x(min(at + 3u * stride, last)),
    ));
}

// sums = weights * block + factor * sums, without the latter for the first block.
fn accumulate_$x(result: u32, lane: u32, weights: Weights, block: Block, factor: Rows, is_first: bool) {
    let fourth = 4u * block.stride;
    for (var cell = 0u; cell < CELLS; cell++) {
        var at = block.base + block.stride * block.first + cell;
        let last = block.base + block.stride * (block.end - 1u) + cell;
        var sums = Quad();
        sums += weights.w$w * four_$x(at, block.stride, last); at += fourth;
        let slot = CELLS * result + cell;
        if !is_first {
            sums += scaled(fetch_sums(slot, lane), factor);
        }
        put_sums(slot, lane, sums);
    }
}
