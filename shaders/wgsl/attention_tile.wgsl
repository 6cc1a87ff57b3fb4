// Attention for GPUs: out = softmax(scale * q * transpose(k)) * v per head, and the log-sum-exp of the scores, all f32.
//
// One workgroup of 256 threads computes 64 rows of one head. It walks over the keys, 32 at a time, with the largest score and
// the sum of the weights so far of every row (M. Milakov, N. Gimelshein, 2018; T. Dao et al., 2022): the sums of weighted
// values are scaled down whenever a larger score turns up. It stops at the last key that its last row sees.
//
// Bindings: 0 Params, 1 q, 2 k, [3 v, 4 out], [last lse]. Knobs (header): CELLS, LSE_BINDING. Hooks: load_v, store_out,
// store_lse. Tiles and workgroup memory: attention_tile.wgsl in lib. No subgroup operations.

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let id = group.x + group.y * p.grid_x;
    if id >= p.tiles {
        return;
    }
    let place = place_of(id, p.heads);
    let first = ROWS * place.tile;
    let x = thread % 16u;
    let y = thread / 16u;
    let rows = first + 4u * y + vec4<u32>(0u, 1u, 2u, 3u);
    let head = key_head(place.head);
    let queries = Rows(Q, q_base(place.batch, place.head), p.q_row, first, p.queries);
    let end = min(p.keys, first + ROWS + p.ahead);
    let last = min(rows + p.ahead, vec4<u32>(p.keys - 1u));

    var largest = vec4<f32>(HIDDEN);
    var total = vec4<f32>();
    var sums = Sums();
    for (var key = 0u; key < end; key += COLUMNS) {
        let keys = Rows(K, k_base(place.batch, head), p.k_row, key, p.keys);
        var scores = p.scale * products(queries, keys, thread);
        let column = key + 2u * x;
        scores[0] = select(vec4<f32>(HIDDEN), scores[0], vec4<u32>(column) <= last);
        scores[1] = select(vec4<f32>(HIDDEN), scores[1], vec4<u32>(column + 1u) <= last);

        publish(scores, thread);
        var next = largest;
        for (var at = 0u; at < COLUMNS; at++) {
            next = max(next, wg[16u * at + y]);
        }
        publish(mat2x4<f32>(exp(scores[0] - next), exp(scores[1] - next)), thread);
        let shrink = exp(largest - next);
        largest = next;
        total *= shrink;
        for (var at = 0u; at < COLUMNS; at++) {
            total += wg[16u * at + y];
        }
        if NEEDS_OUT {
            let values = Rows(V, v_base(place.batch, head), p.v_row, key, p.keys);
            sums.left = scaled(sums.left, shrink);
            sums.right = scaled(sums.right, shrink);
            sums = accumulate(sums, values, thread);
        }
    }

    let norm = 1.0 / total;
    sums.left = scaled(sums.left, norm);
    sums.right = scaled(sums.right, norm);
    let log_sum = largest + log(total);
    for (var i = 0u; i < 4u; i++) {
        if rows[i] < p.queries {
            let at = query_cell(place.batch, place.head, rows[i]);
            if x < CELLS {
                store_out(at + x, sums.left[i]);
            }
            if x + 16u < CELLS {
                store_out(at + x + 16u, sums.right[i]);
            }
            if x == 0u {
                store_lse(query_row(place.batch, place.head, rows[i]), log_sum[i]);
            }
        }
    }
}

fn scaled(rows: mat4x4<f32>, factors: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(rows[0] * factors.x, rows[1] * factors.y, rows[2] * factors.z, rows[3] * factors.w);
}
