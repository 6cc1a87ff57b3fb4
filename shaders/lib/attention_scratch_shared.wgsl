// Scratch memory of attention's lanes in workgroup memory. 12 * SLOTS * LANES bytes of it.

var<workgroup> pairs: array<Pair, SLOTS * LANES>;
var<workgroup> thirds: array<f32, SLOTS * LANES>;

fn put(slot: u32, lane: u32, rows: vec3<f32>) {
    let at = slot * LANES + lane;
    pairs[at] = packed_pair(rows.xy);
    thirds[at] = rows.z;
}

fn fetch(slot: u32, lane: u32) -> vec3<f32> {
    let at = slot * LANES + lane;
    return vec3<f32>(unpacked_pair(pairs[at]), thirds[at]);
}
