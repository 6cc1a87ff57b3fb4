// The entry point of kernels whose workgroups are one subgroup: each takes tiles for as long as there are any.
//
// A software device gives every thread the same number of neighbouring workgroups, and waits for the last one. Where one core
// is slower than another (efficient cores, a busy neighbour) the others would wait for it. So a launch has as many workgroups
// as tiles, but the first one of each thread computes nearly all of that thread's, and those after it find nothing left. Tiles
// are in PARTS of neighbours, which share rows of A or keys: a workgroup begins with the part that its own tile is in.
//
// Who computes a tile changes no bit of it. The workgroup that ends last sets all counters back to zero for the next launch.
//
// Knobs: LANES, the size of a subgroup. Hooks: tile.

const PARTS: u32 = 8u;

struct Counters {
    taken: array<atomic<u32>, PARTS>,
    ended: atomic<u32>,
}

@group(1) @binding(0) var<storage, read_write> counters: Counters;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let part_tiles = (p.tiles + PARTS - 1u) / PARTS;
    var part = min((group.x + group.y * p.grid_x) / part_tiles, PARTS - 1u);
    var exhausted = 0u;
    while exhausted < PARTS {
        var taken = 0u;
        if lane == 0u {
            taken = atomicAdd(&counters.taken[part], 1u);
        }
        taken = subgroupBroadcastFirst(taken);
        let first = part * part_tiles;
        if taken < part_tiles && first + taken < p.tiles {
            tile(first + taken, lane);
        } else {
            exhausted += 1u;
            part = (part + 1u) % PARTS;
        }
    }
    if lane == 0u && atomicAdd(&counters.ended, 1u) == groups.x * groups.y - 1u {
        for (var i = 0u; i < PARTS; i += 1u) {
            atomicStore(&counters.taken[i], 0u);
        }
        atomicStore(&counters.ended, 0u);
    }
}
