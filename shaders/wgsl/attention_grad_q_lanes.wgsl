// Gradient of attention with respect to q, for software devices, all f32.
//
//   P = exp(scale * q * transpose(k) - lse),  dS = P o (dy * transpose(v) - delta),  dq = scale * dS * k
//
// Each lane computes two rows; the rows of q, dy and dq stay in its registers. The workgroup walks over the keys, four at a
// time; under causality it stops at its own last row. Reference: T. Dao et al., FlashAttention, 2022, appendix B.2.
//
// Bindings: 0 Params, 1 q, 2 k, 3 v, 4 lse, 5 delta, 6 dy, 7 dq. Knobs (header): CELLS, LANES. Registers:
// attention_lanes.wgsl in lib. Workgroup memory: none. No subgroup operations; correct for any LANES on any device.

@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>;

fn store_cell(result: u32, at: u32, value: vec4<f32>) {
    dq[at] = value;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let id = group.x + group.y * p.grid_x;
    if id >= p.tiles {
        return;
    }
    let place = place_of(id, p.heads);
    let head = key_head(place.head);
    let first = 2u * LANES * place.tile;
    let row = first + 2u * lane;
    let rows = min(vec2<u32>(row, row + 1u), vec2<u32>(p.queries - 1u));
    let queries = load_slab(Q, two_rows(q_base(place.batch, place.head), p.q_row, row, p.queries), p.scale);
    let gradients = load_slab(DY, two_rows(dy_base(place.batch, place.head), p.dy_row, row, p.queries), 1.0);
    let at = vec2<u32>(query_row(place.batch, place.head, rows.x), query_row(place.batch, place.head, rows.y));
    let log_sum = vec2<f32>(lse[at.x], lse[at.y]);
    let centre = vec2<f32>(delta[at.x], delta[at.y]);
    let end = select(p.keys, min(p.keys, first + 2u * LANES), p.causal != 0u);
    let last = select(vec2<u32>(p.keys - 1u), min(rows, vec2<u32>(p.keys - 1u)), p.causal != 0u);
    let keys = k_base(place.batch, head);
    let values = v_base(place.batch, head);

    var sums: Slab;
    for (var key = 0u; key < end; key += 4u) {
        let key_rows = four_rows(keys, p.k_row, key, p.keys);
        let scores = dots(K, key_rows, queries);
        let weighted = dots(V, four_rows(values, p.v_row, key, p.keys), gradients);
        let four = key + vec4<u32>(0u, 1u, 2u, 3u);
        let ds = mat2x4<f32>(
            select(vec4<f32>(), exp(scores[0] - log_sum.x) * (weighted[0] - centre.x), four <= vec4<u32>(last.x)),
            select(vec4<f32>(), exp(scores[1] - log_sum.y) * (weighted[1] - centre.y), four <= vec4<u32>(last.y)),
        );
        sums = add_rows(sums, vec2<f32>(1.0), K, key_rows, ds);
    }

    if row < p.queries {
        store_slab(0u, query_cell(place.batch, place.head, row), sums, 0u, p.scale);
    }
    if row + 1u < p.queries {
        store_slab(0u, query_cell(place.batch, place.head, row + 1u), sums, 1u, p.scale);
    }
}
