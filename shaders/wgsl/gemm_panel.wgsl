// GEMM for software devices: C[b, m, n] = epilogue(alpha * sum_k A[b, m, k] * B[b, k, n]), all f32.
//
//           2 * 4 * LANES columns    One workgroup is one SIMD vector of LANES invocations. It owns a panel of 8 * LANES
//           +--------+--------+      columns and a stripe of tile_rows rows of C. For each DEPTH steps of k, each lane
//     DEPTH | B: registers of |      loads DEPTH rows x 2 x 4 columns of B into named matrices (32 KiB for 64 steps and 16
//           |    the lanes    |      lanes: they end up on the stack, in the first level cache), then the workgroup walks
//           +--------+--------+      down the stripe, ROWS rows at a time: values of A, equal for all lanes, times the
//   +----+  +--------+--------+      lane's columns of B. Between the blocks of k the sums live in C.
//   | A  |  | C: tile_rows    |
//   +----+  +--------+--------+      Loads that differ from lane to lane are what such a device is slow at: here only B,
//                                    once per stripe, and C, once per DEPTH steps of k, are loaded that way: in words of
//                                    64 bits where the device has them, which take no longer than words of 32.
//
// What a row costs besides its products (the loop, the addresses, a load and a broadcast per value of A, C back and forth) is
// why a panel is as wide as the cache allows. More rows at a time than A's storage asks for (one by rows, two by columns) are
// slower: the loop's body, some 12 KiB a row, then no longer comes out of the processor's cache of decoded instructions.
//
// alpha is applied to B, and zero in its place to rows beyond the end of k, which repeat the last one; so does A.
//
// Bindings: 0 Params, 1 A, 2 B, 3 C, 4.. the hook's. Knobs (header): LANES, DEPTH (16 or 64; lines with $i are repeated for a
// quarter of it), PAIRED (otherwise the panel has 4 * LANES columns), A_TRANSPOSED, B_TRANSPOSED, ACCUMULATE, CELL. Hooks: Rows,
// load_a, load_b, load_c, store_c, epilogue. Workgroup memory: none. No subgroup operations; correct for any LANES on any device.

// Four rows of B, times a lane's 4 columns in the left half of the panel and its 4 in the right one.
struct Block {
    left: mat4x4<f32>,
    right: mat4x4<f32>,
}

// DEPTH rows of B.
struct Slab {
    b$i: Block,
}

// Sums of ROWS rows of C.
struct Sums {
    left: Rows,
    right: Rows,
}

// alpha * B[k .. k + DEPTH], zero beyond the end of k.
fn load_slab(base: u32, k: u32, column: u32) -> Slab {
    let left = b_columns(base, column);
    let right = b_columns(base, column + 4u * LANES);
    var slab: Slab;
    slab.b$i = load_block(left, right, k + 4 * $i, column);
    return slab;
}

fn load_block(left: vec4<u32>, right: vec4<u32>, k: u32, column: u32) -> Block {
    let rows = b_rows(k);
    let factors = select(vec4<f32>(), vec4<f32>(p.alpha), k + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.k));
    var block: Block;
    block.left = scaled_rows(factors, load_b_at(left + rows, b_last(k, column)));
    if PAIRED {
        block.right = scaled_rows(factors, load_b_at(right + rows, b_last(k, column + 4u * LANES)));
    }
    return block;
}

fn scaled_rows(factors: vec4<f32>, b: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(factors.x * b[0], factors.y * b[1], factors.z * b[2], factors.w * b[3]);
}

// sum + a * b, one term of the sum after the other.
fn add_product(sum: vec4<f32>, a: vec4<f32>, b: mat4x4<f32>) -> vec4<f32> {
    return sum + a.x * b[0] + a.y * b[1] + a.z * b[2] + a.w * b[3];
}

// sums + A[row .. row + ROWS, k .. k + 4] * b
fn multiply(sums: Sums, base: u32, row: u32, k: u32, b: Block) -> Sums {
    let a = load_rows(base, row, k);
    var next = sums;
    next.left = add_products(sums.left, a, b.left);
    if PAIRED {
        next.right = add_products(sums.right, a, b.right);
    }
    return next;
}

// Adds a row's sums of one block of k to what the blocks before it left, and stores them. Row and column exist.
fn store_row(place: Place, row: u32, column: u32, k: u32, sum: vec4<f32>) {
    let last = last_below(column, p.n);
    let at = place.c + row * p.c_row + column / CELL;
    var value = sum;
    if ACCUMULATE || k > 0u {
        value += load_c(at, last);
    }
    if k + DEPTH >= p.k {
        value = finish_c(place, row, column, last, value);
    }
    store_c(at, last, value);
}

fn tile(id: u32, lane: u32) {
    let place = place_of(id);
    let first_row = p.tile_rows * place.row_tile;
    let end_row = min(first_row + p.tile_rows, p.m);
    let column = 4u * (select(1u, 2u, PAIRED) * LANES * place.column_tile + lane);
    let right = column + 4u * LANES;
    // Asked here, since what is asked for every row costs 5 % of the time.
    if column >= p.n {
        return;
    }

    for (var k = 0u; k < p.k; k += DEPTH) {
        let slab = load_slab(place.b, k, column);
        for (var row = first_row; row < end_row; row += ROWS) {
            var sums = Sums();
            sums = multiply(sums, place.a, row, k + 4 * $i, slab.b$i);
            store_rows(place, row, column, k, sums.left);
            if PAIRED && right < p.n {
                store_rows(place, row, right, k, sums.right);
            }
        }
    }
}
