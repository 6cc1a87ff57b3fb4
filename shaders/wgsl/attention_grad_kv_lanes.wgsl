// Gradients of attention with respect to k and v, for software devices, all f32.
//
//   P = exp(scale * q * transpose(k) - lse),  dS = P o (dy * transpose(v) - delta)
//   dk = scale * transpose(dS) * q,  dv = transpose(P) * dy,  summed over the query heads that share a key head
//
// Each lane computes three rows. The workgroup walks over the query heads in order, and over the queries of each in blocks;
// it begins at the first query that sees its first row. P and then dS of a block are in the same slots of scratch memory.
// Reference: T. Dao et al., FlashAttention, 2022, appendix B.2.
//
// Bindings: 0 Params, 1 q, 2 k, 3 v, 4 lse, 5 delta, 6 dy, [dk], [dv]. Knobs (header): CELLS, LANES, DK_BINDING,
// DV_BINDING. Hooks: store_dk, store_dv. Registers and scratch memory: attention_lanes.wgsl in lib. No subgroup operations,
// no barriers; correct for any LANES on any device.

// Numbers of the results; where only dv is wanted it is the first one.
const DK = 0u;
const DV = RESULTS - 1u;

fn store_cell(result: u32, at: u32, value: Cell) {
    if NEEDS_DK && result == DK {
        store_dk(at, value);
    } else {
        store_dv(at, value);
    }
}

fn tile(id: u32, lane: u32) {
    let place = place_of(id, p.groups);
    let first = 3u * LANES * place.tile;
    let rows = first + 3u * lane + vec3<u32>(0u, 1u, 2u);
    let keys = slab_k(three_rows(k_base(place.batch, place.head), p.k_row, rows, p.keys), p.scale);
    let values = slab_v(three_rows(v_base(place.batch, place.head), p.v_row, rows, p.keys), 1.0);
    // The first query that sees a row.
    let since = max(rows, vec3<u32>(p.ahead)) - p.ahead;
    let start = max(first, p.ahead) - p.ahead;
    let share = p.heads / p.groups;

    for (var j = 0u; j < share; j++) {
        let head = place.head * share + j;
        let queries = q_base(place.batch, head);
        let gradients = dy_base(place.batch, head);
        for (var block = start; block < p.queries; block += DEPTH) {
            let count = min(p.queries - block, DEPTH);
            let is_first = j == 0u && block == start;
            for (var i = 0u; i < count; i++) {
                let query = block + i;
                let scores = dots_q(keys, queries + query * p.q_row);
                let weights = exp(scores - lse[query_row(place.batch, head, query)]);
                put(i, lane, select(Rows(), weights, vec3<u32>(query) >= since));
            }
            if NEEDS_DV {
                let block_of_gradients = Block(gradients, p.dy_row, block, p.queries);
                accumulate_dy(DV, lane, load_weights(lane, count), block_of_gradients, Rows(1.0), is_first);
            }
            if NEEDS_DK {
                for (var i = 0u; i < count; i++) {
                    let query = block + i;
                    let weighted = dots_dy(values, gradients + query * p.dy_row);
                    put(i, lane, fetch(i, lane) * (weighted - delta[query_row(place.batch, head, query)]));
                }
                let block_of_queries = Block(queries, p.q_row, block, p.queries);
                accumulate_q(DK, lane, load_weights(lane, count), block_of_queries, Rows(1.0), is_first);
            }
        }
    }

    let at = vec3<u32>(
        key_cell(place.batch, place.head, rows.x),
        key_cell(place.batch, place.head, rows.y),
        key_cell(place.batch, place.head, rows.z),
    );
    let exists = rows < vec3<u32>(p.keys);
    if NEEDS_DK {
        store_sums(DK, lane, at, exists, Rows(p.scale));
    }
    if NEEDS_DV {
        store_sums(DV, lane, at, exists, Rows(1.0));
    }
}
