// Hook load_a where all is aligned to four elements, in 64-bit words, which some devices gather at half the cost: cell `at`
// of A; a cell is never cut, so `last` is always 3. No binding has 2^27 cells (2 GiB): the mask only tells the driver's
// compiler that no address has a sign, which spares it half of the comparison with the bounds.

@group(0) @binding(A_BINDING) var<storage, read> a: array<vec2<u64>>;

fn load_a(at: u32, last: u32) -> vec4<f32> {
    return unpacked(a[at & 0x07ffffffu]);
}
