// Gradient of attention with respect to q, for GPUs, all f32.
//
//   P = exp(scale * q * transpose(k) - lse),  dS = P o (dy * transpose(v) - delta),  dq = scale * dS * k
//
// One workgroup of 256 threads computes 64 rows of one head and walks over the keys, 32 at a time; it stops at the last
// key that its last row sees. Reference: T. Dao et al., FlashAttention, 2022, appendix B.2.
//
// Bindings: 0 Params, 1 q, 2 k, 3 v, 4 lse, 5 delta, 6 dy, 7 dq. Knobs (header): CELLS. Tiles and workgroup memory:
// attention_tile.wgsl in lib. No subgroup operations.

@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let id = group.x + group.y * p.grid_x;
    if id >= p.tiles {
        return;
    }
    let place = place_of(id, p.heads);
    let first = ROWS * place.tile;
    let x = thread % 16u;
    let rows = first + 4u * (thread / 16u) + vec4<u32>(0u, 1u, 2u, 3u);
    let head = key_head(place.head);
    let queries = Rows(Q, q_base(place.batch, place.head), p.q_row, first, p.queries);
    let gradients = Rows(DY, dy_base(place.batch, place.head), p.dy_row, first, p.queries);
    let end = min(p.keys, first + ROWS + p.ahead);
    let last = min(rows + p.ahead, vec4<u32>(p.keys - 1u));

    var log_sum = vec4<f32>();
    var centre = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        let at = query_row(place.batch, place.head, min(rows[i], p.queries - 1u));
        log_sum[i] = lse[at];
        centre[i] = delta[at];
    }

    var sums = Sums();
    for (var key = 0u; key < end; key += COLUMNS) {
        let keys = Rows(K, k_base(place.batch, head), p.k_row, key, p.keys);
        let values = Rows(V, v_base(place.batch, head), p.v_row, key, p.keys);
        let scores = products(queries, keys, thread);
        let weighted = products(gradients, values, thread);
        var ds = mat2x4<f32>();
        for (var i = 0u; i < 2u; i++) {
            let is_visible = vec4<u32>(key + 2u * x + i) <= last;
            let weights = exp(p.scale * scores[i] - log_sum);
            ds[i] = select(vec4<f32>(), weights * (weighted[i] - centre), is_visible);
        }
        publish(ds, thread);
        sums = accumulate(sums, keys, thread);
    }

    for (var i = 0u; i < 4u; i++) {
        if rows[i] < p.queries {
            let at = query_cell(place.batch, place.head, rows[i]);
            if x < CELLS {
                dq[at + x] = p.scale * sums.left[i];
            }
            if x + 16u < CELLS {
                dq[at + x + 16u] = p.scale * sums.right[i];
            }
        }
    }
}
