// Gradients of attention with respect to k and v, for GPUs, all f32.
//
//   P = exp(scale * q * transpose(k) - lse),  dS = P o (dy * transpose(v) - delta)
//   dk = scale * transpose(dS) * q,  dv = transpose(P) * dy,  summed over the query heads that share a key head
//
// One workgroup of 256 threads computes 64 rows of one key head. It walks over the query heads in order, and over the queries
// of each, 32 at a time; it begins at the first query that sees its own first row. Scores are held transposed, keys down, queries
// across. Reference: T. Dao et al., FlashAttention, 2022, appendix B.2.
//
// Bindings: 0 Params, 1 q, 2 k, 3 v, 4 lse, 5 delta, 6 dy, [dk], [dv]. Knobs (header): CELLS, DK_BINDING, DV_BINDING. Hooks:
// store_dk, store_dv. Tiles and workgroup memory: attention_tile.wgsl in lib. No subgroup operations.

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let id = group.x + group.y * p.grid_x;
    if id >= p.tiles {
        return;
    }
    let place = place_of(id, p.groups);
    let first = ROWS * place.tile;
    let x = thread % 16u;
    let rows = first + 4u * (thread / 16u) + vec4<u32>(0u, 1u, 2u, 3u);
    let keys = Rows(K, k_base(place.batch, place.head), p.k_row, first, p.keys);
    let values = Rows(V, v_base(place.batch, place.head), p.v_row, first, p.keys);
    let share = p.heads / p.groups;
    let start = max(first, p.ahead) - p.ahead;

    var dk_sums = Sums();
    var dv_sums = Sums();
    for (var head = place.head * share; head < (place.head + 1u) * share; head++) {
        for (var query = start; query < p.queries; query += COLUMNS) {
            let queries = Rows(Q, q_base(place.batch, head), p.q_row, query, p.queries);
            let gradients = Rows(DY, dy_base(place.batch, head), p.dy_row, query, p.queries);
            let scores = products(keys, queries, thread);
            let weighted = products(values, gradients, thread);
            var weights = mat2x4<f32>();
            var ds = mat2x4<f32>();
            for (var i = 0u; i < 2u; i++) {
                let column = query + 2u * x + i;
                let at = query_row(place.batch, head, min(column, p.queries - 1u));
                let is_visible = (rows <= vec4<u32>(column + p.ahead)) & vec4<bool>(column < p.queries);
                weights[i] = select(vec4<f32>(), exp(p.scale * scores[i] - lse[at]), is_visible);
                ds[i] = weights[i] * (weighted[i] - delta[at]);
            }
            if NEEDS_DV {
                publish(weights, thread);
                dv_sums = accumulate(dv_sums, gradients, thread);
            }
            if NEEDS_DK {
                publish(ds, thread);
                dk_sums = accumulate(dk_sums, queries, thread);
            }
        }
    }

    for (var i = 0u; i < 4u; i++) {
        if rows[i] < p.keys {
            let at = key_cell(place.batch, place.head, rows[i]);
            if x < CELLS {
                store_dk(at + x, p.scale * dk_sums.left[i]);
                store_dv(at + x, dv_sums.left[i]);
            }
            if x + 16u < CELLS {
                store_dk(at + x + 16u, p.scale * dk_sums.right[i]);
                store_dv(at + x + 16u, dv_sums.right[i]);
            }
        }
    }
}
