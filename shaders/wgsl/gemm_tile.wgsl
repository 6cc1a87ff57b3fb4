// GEMM for GPUs: C[b, m, n] = epilogue(alpha * sum_k A[b, m, k] * B[b, k, n]), all f32, sums in f32 in the order of k.
//
//            n ->                  One workgroup of 256 threads computes a 64 x 64 tile of C; thread (x, y) holds the
//         +--------+               4 x 4 block at row 4y, column 4x in registers. For each 32 steps of k, threads
//       k | wg_b   |  32           0 .. 127 copy a 64 x 32 slice of A to workgroup memory, threads 128 .. 255 a 32 x 64
//         +--------+               slice of B: one 4 x 4 block a thread. Both slices lie k-major, so that a thread reads
//   +---+ +--------+               four rows of A and four columns of B as one vec4 each.
// m |   | | 64x64  |
//   +---+ +--------+               Slot of block j in line k: 16k + (j xor k/4): blocks of one j stored by neighbouring
//  wg_a 32                         threads at k, k + 4, .. fall into different banks.
//
// Bindings: 0 Params, 1 A, 2 B, 3 C, 4.. the hook's. Knobs (header): A_TRANSPOSED, B_TRANSPOSED, ACCUMULATE, CELL.
// Hooks: load_a, load_b, epilogue. Workgroup memory: 2 slices * 32 * 64 * 4 B = 16 KiB. No subgroup operations.

const DEPTH = 32u;

var<workgroup> wg_a: array<vec4<f32>, 512>;
var<workgroup> wg_b: array<vec4<f32>, 512>;

fn wg_slot(k: u32, block: u32) -> u32 {
    return 16u * k + (block ^ (k / 4u));
}

fn store_row(place: Place, row: u32, column: u32, sum: vec4<f32>) {
    if row < p.m && column < p.n {
        let last = last_below(column, p.n);
        let c_at = place.c + row * p.c_row + column / CELL;
        var value = p.alpha * sum;
        if ACCUMULATE {
            value += load_c(c_at, last);
        }
        store_c(c_at, last, finish_c(place, row, column, last, value));
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let id = group.x + group.y * p.grid_x;
    if id >= p.tiles {
        return;
    }
    let place = place_of(id);
    let first_row = 64u * place.row_tile;
    let first_column = 64u * place.column_tile;
    let x = thread % 16u;
    let y = thread / 16u;

    // The block that this thread copies: consecutive threads follow the direction in which memory runs.
    let copies_b = thread >= 128u;
    let along_k = select(!A_TRANSPOSED, B_TRANSPOSED, copies_b);
    let copied = thread % 128u;
    let copy_k = 4u * select(copied / 16u, copied % 8u, along_k);
    let copy_block = select(copied % 16u, copied / 8u, along_k);

    var acc0 = vec4<f32>();
    var acc1 = vec4<f32>();
    var acc2 = vec4<f32>();
    var acc3 = vec4<f32>();
    for (var k0 = 0u; k0 < p.k; k0 += DEPTH) {
        let k = k0 + copy_k;
        if copies_b {
            let block = mask_b_block(load_b_block(place.b, k, first_column + 4u * copy_block), k);
            wg_b[wg_slot(copy_k, copy_block)] = block[0];
            wg_b[wg_slot(copy_k + 1u, copy_block)] = block[1];
            wg_b[wg_slot(copy_k + 2u, copy_block)] = block[2];
            wg_b[wg_slot(copy_k + 3u, copy_block)] = block[3];
        } else {
            let block = transpose(mask_a_block(load_a_block(place.a, first_row + 4u * copy_block, k), k));
            wg_a[wg_slot(copy_k, copy_block)] = block[0];
            wg_a[wg_slot(copy_k + 1u, copy_block)] = block[1];
            wg_a[wg_slot(copy_k + 2u, copy_block)] = block[2];
            wg_a[wg_slot(copy_k + 3u, copy_block)] = block[3];
        }
        workgroupBarrier();
        for (var line = 0u; line < DEPTH; line++) {
            let a = wg_a[wg_slot(line, y)];
            let b = wg_b[wg_slot(line, x)];
            acc0 += a.x * b;
            acc1 += a.y * b;
            acc2 += a.z * b;
            acc3 += a.w * b;
        }
        workgroupBarrier();
    }

    let row = first_row + 4u * y;
    let column = first_column + 4u * x;
    store_row(place, row, column, acc0);
    store_row(place, row + 1u, column, acc1);
    store_row(place, row + 2u, column, acc2);
    store_row(place, row + 3u, column, acc3);
}
