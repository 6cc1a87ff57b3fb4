// Gradient of attention with respect to q, for software devices, all f32.
//
//   P = exp(scale * q * transpose(k) - lse),  dS = P o (dy * transpose(v) - delta),  dq = scale * dS * k
//
// Each lane computes three rows. The workgroup walks over the keys in blocks; it stops at the last key that its last row sees.
// Reference: T. Dao et al., FlashAttention, 2022, appendix B.2.
//
// Bindings: 0 Params, 1 q, 2 k, 3 v, 4 lse, 5 delta, 6 dy, 7 dq. Knobs (header): CELLS, LANES. Registers and scratch memory:
// attention_lanes.wgsl in lib. No subgroup operations, no barriers; correct for any LANES on any device.

@group(0) @binding(7) var<storage, read_write> dq: array<Cell>;

fn store_cell(result: u32, at: u32, value: Cell) {
    dq[at] = value;
}

fn tile(id: u32, lane: u32) {
    let place = place_of(id, p.heads);
    let head = key_head(place.head);
    let first = 3u * LANES * place.tile;
    let rows = first + 3u * lane + vec3<u32>(0u, 1u, 2u);
    let queries = slab_q(three_rows(q_base(place.batch, place.head), p.q_row, rows, p.queries), p.scale);
    let gradients = slab_dy(three_rows(dy_base(place.batch, place.head), p.dy_row, rows, p.queries), 1.0);
    let at = three_rows(query_row(place.batch, place.head, 0u), p.heads, rows, p.queries);
    let log_sum = Rows(lse[at.x], lse[at.y], lse[at.z]);
    let centre = Rows(delta[at.x], delta[at.y], delta[at.z]);
    let end = min(p.keys, first + 3u * LANES + p.ahead);
    let last = rows + p.ahead;
    let keys = k_base(place.batch, head);
    let values = v_base(place.batch, head);

    for (var block = 0u; block < end; block += DEPTH) {
        let count = min(end - block, DEPTH);
        for (var i = 0u; i < count; i++) {
            let key = block + i;
            let scores = dots_k(queries, keys + key * p.k_row);
            let weighted = dots_v(gradients, values + key * p.v_row);
            put(i, lane, select(Rows(), exp(scores - log_sum) * (weighted - centre), vec3<u32>(key) <= last));
        }
        let block_of_keys = Block(keys, p.k_row, block, end);
        accumulate_k(0u, lane, load_weights(lane, count), block_of_keys, Rows(1.0), block == 0u);
    }
    store_sums(0u, lane, at * CELLS, rows < vec3<u32>(p.queries), Rows(p.scale));
}
