// Scratch memory of attention's lanes in workgroup memory, 12 * (DEPTH + 4 * CELLS * RESULTS) * LANES bytes of it: weights
// of three rows, and sums of three rows by four elements. Those take six words, since three floats cost as much as four.

var<workgroup> pairs: array<Pair, DEPTH * LANES>;
var<workgroup> thirds: array<f32, DEPTH * LANES>;
var<workgroup> sums: array<Pair, 6u * CELLS * RESULTS * LANES>;

fn put(slot: u32, lane: u32, rows: vec3<f32>) {
    let at = slot * LANES + lane;
    pairs[at] = packed_pair(rows.xy);
    thirds[at] = rows.z;
}

fn fetch(slot: u32, lane: u32) -> vec3<f32> {
    let at = slot * LANES + lane;
    return vec3<f32>(unpacked_pair(pairs[at]), thirds[at]);
}

fn put_sums(slot: u32, lane: u32, quad: mat4x3<f32>) {
    let at = 6u * slot * LANES + lane;
    sums[at] = packed_pair(quad[0].xy);
    sums[at + LANES] = packed_pair(quad[1].xy);
    sums[at + 2u * LANES] = packed_pair(quad[2].xy);
    sums[at + 3u * LANES] = packed_pair(quad[3].xy);
    sums[at + 4u * LANES] = packed_pair(vec2<f32>(quad[0].z, quad[1].z));
    sums[at + 5u * LANES] = packed_pair(vec2<f32>(quad[2].z, quad[3].z));
}

fn fetch_sums(slot: u32, lane: u32) -> mat4x3<f32> {
    let at = 6u * slot * LANES + lane;
    let left = unpacked_pair(sums[at + 4u * LANES]);
    let right = unpacked_pair(sums[at + 5u * LANES]);
    return mat4x3<f32>(
        vec3<f32>(unpacked_pair(sums[at]), left.x),
        vec3<f32>(unpacked_pair(sums[at + LANES]), left.y),
        vec3<f32>(unpacked_pair(sums[at + 2u * LANES]), right.x),
        vec3<f32>(unpacked_pair(sums[at + 3u * LANES]), right.y),
    );
}
