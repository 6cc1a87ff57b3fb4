// C for any alignment: access to four consecutive elements from cell `at` on, of which those up to the `last`-th exist.

@group(0) @binding(3) var<storage, read_write> c: array<f32>;

fn load_c(at: u32, last: u32) -> vec4<f32> {
    return vec4<f32>(c[at], c[at + min(1u, last)], c[at + min(2u, last)], c[at + min(3u, last)]);
}

fn store_c(at: u32, last: u32, value: vec4<f32>) {
    c[at] = value.x;
    if last >= 1u {
        c[at + 1u] = value.y;
    }
    if last >= 2u {
        c[at + 2u] = value.z;
    }
    if last >= 3u {
        c[at + 3u] = value.w;
    }
}
