// Attention for software devices: out = softmax(scale * q * transpose(k)) * v per head, and the log-sum-exp of the scores,
// all f32.
//
// Each lane computes two rows; queries and sums stay in its registers. The workgroup walks over the keys, four at a time, with
// the largest score and the sum of the weights so far of every row (M. Milakov, N. Gimelshein, 2018): the sums of weighted
// values are scaled down whenever a larger score turns up. Under causality it stops at its own last row.
//
// Bindings: 0 Params, 1 q, 2 k, [3 v, 4 out], [last lse]. Knobs (header): CELLS, LANES, LSE_BINDING. Hooks: load_v,
// store_out, store_lse. Registers: attention_lanes.wgsl in lib. Workgroup memory: none. No subgroup operations; correct for
// any LANES on any device.

fn store_cell(result: u32, at: u32, value: vec4<f32>) {
    store_out(at, value);
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
    // Weights are powers of 2.
    let at = two_rows(q_base(place.batch, place.head), p.q_row, row, p.queries);
    let queries = load_slab(Q, at, p.scale * LOG2_E);
    let end = select(p.keys, min(p.keys, first + 2u * LANES), p.causal != 0u);
    let last = select(vec2<u32>(p.keys - 1u), min(vec2<u32>(row, row + 1u), vec2<u32>(p.keys - 1u)), p.causal != 0u);
    let keys = k_base(place.batch, head);
    let values = v_base(place.batch, head);

    var largest = vec2<f32>(HIDDEN);
    var total = vec2<f32>();
    var sums: Slab;
    for (var key = 0u; key < end; key += 4u) {
        var scores = dots(K, four_rows(keys, p.k_row, key, p.keys), queries);
        let four = key + vec4<u32>(0u, 1u, 2u, 3u);
        scores[0] = select(vec4<f32>(HIDDEN), scores[0], four <= vec4<u32>(last.x));
        scores[1] = select(vec4<f32>(HIDDEN), scores[1], four <= vec4<u32>(last.y));
        let next = max(largest, vec2<f32>(largest_of(scores[0]), largest_of(scores[1])));
        let shrink = exp2(largest - next);
        largest = next;
        let weights = mat2x4<f32>(exp2(scores[0] - next.x), exp2(scores[1] - next.y));
        total = total * shrink + vec2<f32>(sum_of(weights[0]), sum_of(weights[1]));
        if NEEDS_OUT {
            sums = add_rows(sums, shrink, V, four_rows(values, p.v_row, key, p.keys), weights);
        }
    }

    for (var j = 0u; j < 2u; j++) {
        if row + j < p.queries {
            store_lse(query_row(place.batch, place.head, row + j), (largest[j] + log2(total[j])) / LOG2_E);
        }
    }
    if row < p.queries {
        store_slab(0u, query_cell(place.batch, place.head, row), sums, 0u, 1.0 / total.x);
    }
    if row + 1u < p.queries {
        store_slab(0u, query_cell(place.batch, place.head, row + 1u), sums, 1u, 1.0 / total.y);
    }
}

const LOG2_E = 1.4426950408889634;

fn largest_of(x: vec4<f32>) -> f32 {
    return max(max(x.x, x.y), max(x.z, x.w));
}

fn sum_of(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}
