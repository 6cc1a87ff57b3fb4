// Scratch memory of attention's lanes where workgroup memory is too small: each lane has an array of its own, a fifth slower.

var<private> slots: array<vec3<f32>, SLOTS>;

fn put(slot: u32, lane: u32, rows: vec3<f32>) {
    slots[slot] = rows;
}

fn fetch(slot: u32, lane: u32) -> vec3<f32> {
    return slots[slot];
}
