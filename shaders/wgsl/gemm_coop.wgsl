// C = A * B (+ C) on cooperative matrices: tiles of EDGE x EDGE elements that a subgroup holds and multiplies as one.
//
// A and B are 16-bit floats, tile after tile, each tile in consecutive memory; the sums are 32-bit floats, and C is dense.
//
//            8 x EDGE columns                 A workgroup computes 8 x 8 tiles of C in four parts of 4 x 4 tiles,
//          +---------+---------+              and a subgroup the parts whose number is its own, or its own and a
//  8 x     | part 0  | part 1  |              multiple of the number of subgroups more. Tiles beyond the edge of C
//  EDGE    +---------+---------+              repeat the last one, and are not stored.
//  rows    | part 2  | part 3  |
//          +---------+---------+              While the tiles of one step are multiplied, those of the next are loaded.
//
// Tiles come straight from storage memory, and the caches are all that subgroups share. Invocations exchange nothing through
// memory: naga marks no access as visible to others once a module has cooperative matrices (gfx-rs/wgpu#8805). For the same
// reason what follows a product is a kernel of its own. A subgroup reads of C nothing but the tiles that it writes.
//
// Sums are named one by one, because an array of tiles has no defined layout.
//
// Bindings: 0 parameters, 1 A, 2 B, 3 C. Hooks: load_a, load_b. Subgroups may have any size.

// Extents of C and of the sums in tiles; tiles of a part of the sums, an even number, and parts; workgroups along a row of C, in all, and along
// a row of the grid.
struct Params {
    m: u32,
    n: u32,
    k: u32,
    part: u32,
    parts: u32,
    column_groups: u32,
    count: u32,
    grid_x: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f16>;
@group(0) @binding(2) var<storage, read> b: array<f16>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;

const TILE = EDGE * EDGE;

// Where a workgroup works: the elements at which its matrices begin, and its sums.
struct Place {
    a: u32,
    b: u32,
    c: u32,
    first: u32,
    end: u32,
    row_tile: u32,
    column_tile: u32,
}

// The place of workgroup `id`. Columns vary fastest, so that neighbours share rows of A.
fn place_of(id: u32) -> Place {
    let row_groups = (p.m + 7u) / 8u;
    let stripe = id / p.column_groups;
    let matrix = stripe / row_groups;
    let batch = matrix / p.parts;
    let first = (matrix % p.parts) * p.part;
    return Place(
        batch * p.m * p.k * TILE,
        batch * p.n * p.k * TILE,
        matrix * p.m * p.n * TILE,
        first,
        min(first + p.part, p.k),
        8u * (stripe % row_groups),
        8u * (id % p.column_groups),
    );
}

// Where the tile of A begins that has this row of tiles, at the beginning of the sums.
fn a_tile(place: Place, row_tile: u32) -> u32 {
    let row = min(row_tile, p.m - 1u);
    return place.a + TILE * select(row * p.k + place.first, row + place.first * p.m, A_TRANSPOSED);
}

// Where the tile of B begins that has this column of tiles, at the beginning of the sums.
fn b_tile(place: Place, column_tile: u32) -> u32 {
    let column = min(column_tile, p.n - 1u);
    return place.b + TILE * select(column + place.first * p.n, column * p.k + place.first, B_TRANSPOSED);
}

fn exists(row_tile: u32, column_tile: u32) -> bool {
    return row_tile < p.m && column_tile < p.n;
}

// Where a tile of C begins.
fn c_tile(place: Place, row_tile: u32, column_tile: u32) -> u32 {
    return place.c + row_tile * p.n * TILE + column_tile * EDGE;
}

// What a tile of C starts from. Metal can add up products and no more, so C is the first sum instead of the last one.
fn first_sums(place: Place, row_tile: u32, column_tile: u32) -> Sums {
    var sums = Sums();
    if ACCUMULATE {
        // Once or not at all, and the same for the whole subgroup, as matrices need it. naga wants branches around them to be
        // the same for the whole workgroup, and leaves loops alone.
        for (var left = exists(row_tile, column_tile); left; left = false) {
            sums = coopLoadT<Sums>(&c[c_tile(place, row_tile, column_tile)], p.n * EDGE);
        }
    }
    return sums;
}

fn store_tile(place: Place, row_tile: u32, column_tile: u32, sums: Sums) {
    for (var left = exists(row_tile, column_tile); left; left = false) {
        // In names, because naga forgets to compute the expressions of a store.
        let at = c_tile(place, row_tile, column_tile);
        let stride = p.n * EDGE;
        coopStoreT(sums, &c[at], stride);
    }
}

// The part of C whose first tile is in this row and column of tiles.
fn compute_part(place: Place, row_tile: u32, column_tile: u32) {
    let a_step = TILE * select(1u, p.m, A_TRANSPOSED);
    let b_step = TILE * select(p.n, 1u, B_TRANSPOSED);
    let last = place.end - place.first - 1u;
    let a0 = a_tile(place, row_tile);
    let a1 = a_tile(place, row_tile + 1u);
    let a2 = a_tile(place, row_tile + 2u);
    let a3 = a_tile(place, row_tile + 3u);
    let b0 = b_tile(place, column_tile);
    let b1 = b_tile(place, column_tile + 1u);
    let b2 = b_tile(place, column_tile + 2u);
    let b3 = b_tile(place, column_tile + 3u);

    var sums00 = first_sums(place, row_tile, column_tile);
    var sums01 = first_sums(place, row_tile, column_tile + 1u);
    var sums02 = first_sums(place, row_tile, column_tile + 2u);
    var sums03 = first_sums(place, row_tile, column_tile + 3u);
    var sums10 = first_sums(place, row_tile + 1u, column_tile);
    var sums11 = first_sums(place, row_tile + 1u, column_tile + 1u);
    var sums12 = first_sums(place, row_tile + 1u, column_tile + 2u);
    var sums13 = first_sums(place, row_tile + 1u, column_tile + 3u);
    var sums20 = first_sums(place, row_tile + 2u, column_tile);
    var sums21 = first_sums(place, row_tile + 2u, column_tile + 1u);
    var sums22 = first_sums(place, row_tile + 2u, column_tile + 2u);
    var sums23 = first_sums(place, row_tile + 2u, column_tile + 3u);
    var sums30 = first_sums(place, row_tile + 3u, column_tile);
    var sums31 = first_sums(place, row_tile + 3u, column_tile + 1u);
    var sums32 = first_sums(place, row_tile + 3u, column_tile + 2u);
    var sums33 = first_sums(place, row_tile + 3u, column_tile + 3u);

    var left0 = load_a(a0);
    var left1 = load_a(a1);
    var left2 = load_a(a2);
    var left3 = load_a(a3);
    var right0 = load_b(b0);
    var right1 = load_b(b1);
    var right2 = load_b(b2);
    var right3 = load_b(b3);
    // Two steps a round, whose tiles have names of their own: nothing is moved from one to the other.
    for (var step = 0u; step < last; step += 2u) {
        let a_second = (step + 1u) * a_step;
        let b_second = (step + 1u) * b_step;
        let other_left0 = load_a(a0 + a_second);
        let other_left1 = load_a(a1 + a_second);
        let other_left2 = load_a(a2 + a_second);
        let other_left3 = load_a(a3 + a_second);
        let other_right0 = load_b(b0 + b_second);
        let other_right1 = load_b(b1 + b_second);
        let other_right2 = load_b(b2 + b_second);
        let other_right3 = load_b(b3 + b_second);
        sums00 = coopMultiplyAdd(left0, right0, sums00);
        sums01 = coopMultiplyAdd(left0, right1, sums01);
        sums02 = coopMultiplyAdd(left0, right2, sums02);
        sums03 = coopMultiplyAdd(left0, right3, sums03);
        sums10 = coopMultiplyAdd(left1, right0, sums10);
        sums11 = coopMultiplyAdd(left1, right1, sums11);
        sums12 = coopMultiplyAdd(left1, right2, sums12);
        sums13 = coopMultiplyAdd(left1, right3, sums13);
        sums20 = coopMultiplyAdd(left2, right0, sums20);
        sums21 = coopMultiplyAdd(left2, right1, sums21);
        sums22 = coopMultiplyAdd(left2, right2, sums22);
        sums23 = coopMultiplyAdd(left2, right3, sums23);
        sums30 = coopMultiplyAdd(left3, right0, sums30);
        sums31 = coopMultiplyAdd(left3, right1, sums31);
        sums32 = coopMultiplyAdd(left3, right2, sums32);
        sums33 = coopMultiplyAdd(left3, right3, sums33);
        // Beyond the end the last tiles again, which nobody multiplies.
        let a_next = min(step + 2u, last) * a_step;
        let b_next = min(step + 2u, last) * b_step;
        left0 = load_a(a0 + a_next);
        left1 = load_a(a1 + a_next);
        left2 = load_a(a2 + a_next);
        left3 = load_a(a3 + a_next);
        right0 = load_b(b0 + b_next);
        right1 = load_b(b1 + b_next);
        right2 = load_b(b2 + b_next);
        right3 = load_b(b3 + b_next);
        sums00 = coopMultiplyAdd(other_left0, other_right0, sums00);
        sums01 = coopMultiplyAdd(other_left0, other_right1, sums01);
        sums02 = coopMultiplyAdd(other_left0, other_right2, sums02);
        sums03 = coopMultiplyAdd(other_left0, other_right3, sums03);
        sums10 = coopMultiplyAdd(other_left1, other_right0, sums10);
        sums11 = coopMultiplyAdd(other_left1, other_right1, sums11);
        sums12 = coopMultiplyAdd(other_left1, other_right2, sums12);
        sums13 = coopMultiplyAdd(other_left1, other_right3, sums13);
        sums20 = coopMultiplyAdd(other_left2, other_right0, sums20);
        sums21 = coopMultiplyAdd(other_left2, other_right1, sums21);
        sums22 = coopMultiplyAdd(other_left2, other_right2, sums22);
        sums23 = coopMultiplyAdd(other_left2, other_right3, sums23);
        sums30 = coopMultiplyAdd(other_left3, other_right0, sums30);
        sums31 = coopMultiplyAdd(other_left3, other_right1, sums31);
        sums32 = coopMultiplyAdd(other_left3, other_right2, sums32);
        sums33 = coopMultiplyAdd(other_left3, other_right3, sums33);
    }
    store_tile(place, row_tile, column_tile, sums00);
    store_tile(place, row_tile, column_tile + 1u, sums01);
    store_tile(place, row_tile, column_tile + 2u, sums02);
    store_tile(place, row_tile, column_tile + 3u, sums03);
    store_tile(place, row_tile + 1u, column_tile, sums10);
    store_tile(place, row_tile + 1u, column_tile + 1u, sums11);
    store_tile(place, row_tile + 1u, column_tile + 2u, sums12);
    store_tile(place, row_tile + 1u, column_tile + 3u, sums13);
    store_tile(place, row_tile + 2u, column_tile, sums20);
    store_tile(place, row_tile + 2u, column_tile + 1u, sums21);
    store_tile(place, row_tile + 2u, column_tile + 2u, sums22);
    store_tile(place, row_tile + 2u, column_tile + 3u, sums23);
    store_tile(place, row_tile + 3u, column_tile, sums30);
    store_tile(place, row_tile + 3u, column_tile + 1u, sums31);
    store_tile(place, row_tile + 3u, column_tile + 2u, sums32);
    store_tile(place, row_tile + 3u, column_tile + 3u, sums33);
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let id = group.x + group.y * p.grid_x;
    if id >= p.count {
        return;
    }
    let place = place_of(id);
    for (var part = subgroup; part < 4u; part += subgroups) {
        compute_part(place, place.row_tile + 4u * (part / 2u), place.column_tile + 4u * (part % 2u));
    }
}
