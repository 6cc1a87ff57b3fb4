// Gradients of attention with respect to k and v, for software devices, all f32.
//
//   P = exp(scale * q * transpose(k) - lse),  dS = P o (dy * transpose(v) - delta)
//   dk = scale * transpose(dS) * q,  dv = transpose(P) * dy,  summed over the query heads that share a key head
//
// Each lane computes two rows; the rows of k, v and their gradients stay in its registers. The workgroup walks over the query
// heads in order, and over the queries of each, four at a time; under causality it begins at its own first row. Reference:
// T. Dao et al., FlashAttention, 2022, appendix B.2.
//
// Bindings: 0 Params, 1 q, 2 k, 3 v, 4 lse, 5 delta, 6 dy, [dk], [dv]. Knobs (header): CELLS, LANES, DK_BINDING,
// DV_BINDING. Hooks: store_dk, store_dv. Registers: attention_lanes.wgsl in lib. Workgroup memory: none. No subgroup
// operations; correct for any LANES on any device.

const DK = 0u;
const DV = 1u;

fn store_cell(result: u32, at: u32, value: vec4<f32>) {
    if result == DK {
        store_dk(at, value);
    } else {
        store_dv(at, value);
    }
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let id = group.x + group.y * p.grid_x;
    if id >= p.tiles {
        return;
    }
    let place = place_of(id, p.groups);
    let first = 2u * LANES * place.tile;
    let row = first + 2u * lane;
    let keys = load_slab(K, two_rows(k_base(place.batch, place.head), p.k_row, row, p.keys), p.scale);
    let values = load_slab(V, two_rows(v_base(place.batch, place.head), p.v_row, row, p.keys), 1.0);
    let start = select(0u, first, p.causal != 0u);
    let share = p.heads / p.groups;

    var dk_sums: Slab;
    var dv_sums: Slab;
    for (var head = place.head * share; head < (place.head + 1u) * share; head++) {
        for (var query = start; query < p.queries; query += 4u) {
            let four = query + vec4<u32>(0u, 1u, 2u, 3u);
            let query_rows = four_rows(q_base(place.batch, head), p.q_row, query, p.queries);
            let dy_rows = four_rows(dy_base(place.batch, head), p.dy_row, query, p.queries);
            let row_at = four_rows(query_row(place.batch, head, 0u), p.heads, query, p.queries);
            let log_sum = vec4<f32>(lse[row_at.x], lse[row_at.y], lse[row_at.z], lse[row_at.w]);
            let scores = dots(Q, query_rows, keys);
            let exists = four < vec4<u32>(p.queries);
            let sees = sees_of(four, row);
            let weights = mat2x4<f32>(
                select(vec4<f32>(), exp(scores[0] - log_sum), exists & sees.first),
                select(vec4<f32>(), exp(scores[1] - log_sum), exists & sees.second),
            );
            if NEEDS_DV {
                dv_sums = add_rows(dv_sums, vec2<f32>(1.0), DY, dy_rows, weights);
            }
            if NEEDS_DK {
                let centre = vec4<f32>(delta[row_at.x], delta[row_at.y], delta[row_at.z], delta[row_at.w]);
                let weighted = dots(DY, dy_rows, values);
                let ds = mat2x4<f32>(weights[0] * (weighted[0] - centre), weights[1] * (weighted[1] - centre));
                dk_sums = add_rows(dk_sums, vec2<f32>(1.0), Q, query_rows, ds);
            }
        }
    }

    if row < p.keys {
        let at = key_cell(place.batch, place.head, row);
        store_slab(DK, at, dk_sums, 0u, p.scale);
        store_slab(DV, at, dv_sums, 0u, 1.0);
    }
    if row + 1u < p.keys {
        let at = key_cell(place.batch, place.head, row + 1u);
        store_slab(DK, at, dk_sums, 1u, p.scale);
        store_slab(DV, at, dv_sums, 1u, 1.0);
    }
}

// Which of four queries see the two keys of a lane.
struct Sees {
    first: vec4<bool>,
    second: vec4<bool>,
}

fn sees_of(four: vec4<u32>, row: u32) -> Sees {
    let all = vec4<bool>(p.causal == 0u);
    return Sees(all | (four >= vec4<u32>(row)), all | (four >= vec4<u32>(row + 1u)));
}
