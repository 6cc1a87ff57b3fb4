// C where all is aligned to four elements, in 64-bit words: access to cell `at`; a cell is never cut, so `last` is always 3.

@group(0) @binding(3) var<storage, read_write> c: array<vec2<u64>>;

fn load_c(at: u32, last: u32) -> vec4<f32> {
    return unpacked(c[at]);
}

fn store_c(at: u32, last: u32, value: vec4<f32>) {
    c[at] = packed(value);
}
