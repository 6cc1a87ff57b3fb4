// Attention for software devices: out = softmax(scale * q * transpose(k)) * v per head, and the log-sum-exp of the scores,
// all f32.
//
// Each lane computes three rows. The workgroup walks over the keys in blocks, with a score of every row and the sum of the
// weights relative to it (M. Milakov, N. Gimelshein, 2018). That score is replaced, everything before scaled down, and the block
// computed again only where another score exceeds it by FAR: hardly ever.
// The workgroup stops at the last key that its last row sees.
//
// Bindings: 0 Params, 1 q, 2 k, [3 v, 4 out], [last lse]. Knobs (header): CELLS, LANES, LSE_BINDING. Hooks: load_v,
// store_out, store_lse. Registers and scratch memory: attention_lanes.wgsl in lib. No subgroup operations, no barriers;
// correct for any LANES on any device.

fn store_cell(result: u32, at: u32, value: Cell) {
    store_out(at, value);
}

fn tile(id: u32, lane: u32) {
    let place = place_of(id, p.heads);
    let head = key_head(place.head);
    let first = 3u * LANES * place.tile;
    let rows = first + 3u * lane + vec3<u32>(0u, 1u, 2u);
    // Weights are powers of 2.
    let at = three_rows(q_base(place.batch, place.head), p.q_row, rows, p.queries);
    let queries = slab_q(at, p.scale * LOG2_E);
    let end = min(p.keys, first + 3u * LANES + p.ahead);
    let last = rows + p.ahead;
    let keys = k_base(place.batch, head);
    let values = v_base(place.batch, head);

    // What scores are compared with: the first key's, which every row sees, or the largest of a block that exceeds it by far.
    var level = dots_k(queries, keys);
    var total = Rows();
    for (var block = 0u; block < end; block += DEPTH) {
        let count = min(end - block, DEPTH);
        var shrink = Rows(1.0);
        var of_block = Rows();
        // A second time where weights would be too large.
        loop {
            var largest = level;
            of_block = Rows();
            for (var i = 0u; i < count; i++) {
                let products = dots_k(queries, keys + (block + i) * p.k_row);
                let scores = select(Rows(HIDDEN), products, vec3<u32>(block + i) <= last);
                let weights = exp2(scores - level);
                largest = max(largest, scores);
                of_block += weights;
                if NEEDS_OUT {
                    put(i, lane, weights);
                }
            }
            if !any(largest > level + FAR) {
                break;
            }
            shrink = exp2(level - largest);
            level = largest;
        }
        total = shrink * total + of_block;
        if NEEDS_OUT {
            let block_of_values = Block(values, p.v_row, block, end);
            accumulate_v(0u, lane, load_weights(lane, count), block_of_values, shrink, block == 0u);
        }
    }

    let exists = rows < vec3<u32>(p.queries);
    let row_at = vec3<u32>(
        query_row(place.batch, place.head, rows.x),
        query_row(place.batch, place.head, rows.y),
        query_row(place.batch, place.head, rows.z),
    );
    for (var j = 0u; j < 3u; j++) {
        if exists[j] {
            store_lse(row_at[j], (level[j] + log2(total[j])) / LOG2_E);
        }
    }
    if NEEDS_OUT {
        store_sums(0u, lane, row_at * CELLS, exists, 1.0 / total);
    }
}

const LOG2_E = 1.4426950408889634;

// Weights reach 2 to this power, and sums of them stay far below what a float holds; none is less precise for it.
const FAR = 60.0;
