// Products of tiles in workgroup memory, for the GPU kernels of attention.
//
//               32 rows of b           256 threads; thread (x, y) holds rows 4y .. 4y + 3 of the tile. Of the scores it holds
//              +------------+          columns 2x and 2x + 1, of a result with rows of E floats the cells x and x + 16.
//   64 rows    |   scores   |
//   of a       |            |          scores = a * transpose(b) runs over E in steps of 32, staged e-major:
//              +------------+          wg[0 .. 512] a, wg[512 .. 768] b. Then a tile of weights takes the place of a
//                                      (column-major, a vec4 is four rows of one column), and rows of another operand that of b.
//
// Workgroup memory: 16 KiB.

const ROWS = 64u;
const COLUMNS = 32u;

var<workgroup> wg: array<vec4<f32>, 1024>;

const Q = 0u;
const K = 1u;
const V = 2u;
const DY = 3u;

// Rows `first ..` of one head of an operand; beyond `end` the last one repeats.
struct Rows {
    operand: u32,
    base: u32,
    stride: u32,
    first: u32,
    end: u32,
}

// Cells of four rows of a result: x in the first half, x + 16 in the second.
struct Sums {
    left: mat4x4<f32>,
    right: mat4x4<f32>,
}

fn load(rows: Rows, row: u32, cell: u32) -> vec4<f32> {
    if cell >= CELLS {
        return vec4<f32>();
    }
    let at = rows.base + min(rows.first + row, rows.end - 1u) * rows.stride + cell;
    if rows.operand == Q {
        return q[at];
    }
    if rows.operand == K {
        return k[at];
    }
    if rows.operand == V {
        return load_v(at);
    }
    return load_dy(at);
}

// Four rows from `row` on, one cell each; column i of the result is element i of all four.
fn load_block(rows: Rows, row: u32, cell: u32) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(
        load(rows, row, cell),
        load(rows, row + 1u, cell),
        load(rows, row + 2u, cell),
        load(rows, row + 3u, cell),
    ));
}

// Blocks of four rows in line e; neighbouring blocks of neighbouring lines fall into different banks.
fn slot_a(e: u32, block: u32) -> u32 {
    return 16u * e + (block ^ (e / 4u));
}

fn slot_b(e: u32, block: u32) -> u32 {
    return 512u + 8u * e + (block ^ (e / 4u));
}

// Rows 4y .. 4y + 3 of a * transpose(b), columns 2x and 2x + 1.
fn products(a: Rows, b: Rows, thread: u32) -> mat2x4<f32> {
    let x = thread % 16u;
    let y = thread / 16u;
    var sums = mat2x4<f32>();
    for (var first = 0u; first < CELLS; first += 8u) {
        workgroupBarrier();
        let cell = thread % 8u;
        let block = thread / 8u;
        if thread < 128u {
            let values = load_block(a, 4u * block, first + cell);
            wg[slot_a(4u * cell, block)] = values[0];
            wg[slot_a(4u * cell + 1u, block)] = values[1];
            wg[slot_a(4u * cell + 2u, block)] = values[2];
            wg[slot_a(4u * cell + 3u, block)] = values[3];
        } else if thread < 192u {
            let values = load_block(b, 4u * (block - 16u), first + cell);
            wg[slot_b(4u * cell, block - 16u)] = values[0];
            wg[slot_b(4u * cell + 1u, block - 16u)] = values[1];
            wg[slot_b(4u * cell + 2u, block - 16u)] = values[2];
            wg[slot_b(4u * cell + 3u, block - 16u)] = values[3];
        }
        workgroupBarrier();
        for (var e = 0u; e < 32u; e++) {
            let four = wg[slot_a(e, y)];
            let columns = wg[slot_b(e, x / 2u)];
            let two = select(columns.xy, columns.zw, x % 2u == 1u);
            sums += mat2x4<f32>(two.x * four, two.y * four);
        }
    }
    return sums;
}

// Puts a tile of weights where `accumulate` finds it; everybody has read what was there before.
fn publish(weights: mat2x4<f32>, thread: u32) {
    workgroupBarrier();
    let at = 32u * (thread % 16u) + thread / 16u;
    wg[at] = weights[0];
    wg[at + 16u] = weights[1];
    workgroupBarrier();
}

// sums + weights * b for the rows of this thread.
fn accumulate(sums: Sums, b: Rows, thread: u32) -> Sums {
    var result = sums;
    result.left = accumulate_half(sums.left, b, 0u, thread);
    if CELLS > 16u {
        result.right = accumulate_half(sums.right, b, 16u, thread);
    }
    return result;
}

fn accumulate_half(sums: mat4x4<f32>, b: Rows, first: u32, thread: u32) -> mat4x4<f32> {
    let x = thread % 16u;
    let y = thread / 16u;
    workgroupBarrier();
    wg[512u + thread] = load(b, y, first + x);
    wg[768u + thread] = load(b, y + 16u, first + x);
    workgroupBarrier();
    var result = sums;
    for (var column = 0u; column < COLUMNS; column++) {
        let weights = wg[16u * column + y];
        let cell = wg[512u + 16u * column + x];
        result += mat4x4<f32>(weights.x * cell, weights.y * cell, weights.z * cell, weights.w * cell);
    }
    return result;
}
