// Scratch memory of attention's lanes where workgroup memory is too small: arrays of each lane, an eighth slower.

var<private> weights_of: array<vec3<f32>, DEPTH>;
var<private> sums_of: array<mat4x3<f32>, CELLS * RESULTS>;

fn put(slot: u32, lane: u32, rows: vec3<f32>) {
    weights_of[slot] = rows;
}

fn fetch(slot: u32, lane: u32) -> vec3<f32> {
    return weights_of[slot];
}

fn put_sums(slot: u32, lane: u32, quad: mat4x3<f32>) {
    sums_of[slot] = quad;
}

fn fetch_sums(slot: u32, lane: u32) -> mat4x3<f32> {
    return sums_of[slot];
}
