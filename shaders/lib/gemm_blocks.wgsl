// 4 x 4 blocks of A and B, whichever way they are stored.
//
// A_TRANSPOSED: A is stored (K, M), else (M, K). B_TRANSPOSED: B is stored (N, K), else (K, N). Where a block reaches beyond
// m, n or k it repeats elements that exist. Rows and columns beyond m and n are never stored to C; what lies beyond k has to
// be masked, in B at least: then a sum meets nothing but its own row of A times zero.

// The cells at which four stored rows from `first` on begin; rows beyond `end` repeat the last one.
fn four_rows(base: u32, stride: u32, first: u32, end: u32) -> vec4<u32> {
    return base + stride * min(first + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(end - 1u));
}

// A[m .. m + 4, k .. k + 4]; column i of the result is row m + i of A.
fn load_a_block(base: u32, m: u32, k: u32) -> mat4x4<f32> {
    if A_TRANSPOSED {
        let column = clamped(m, p.m);
        let last = last_below(column, p.m);
        let at = four_rows(base, p.a_row, k, p.k) + column / CELL;
        return transpose(mat4x4<f32>(load_a(at.x, last), load_a(at.y, last), load_a(at.z, last), load_a(at.w, last)));
    }
    let column = clamped(k, p.k);
    let last = last_below(column, p.k);
    let at = four_rows(base, p.a_row, m, p.m) + column / CELL;
    return mat4x4<f32>(load_a(at.x, last), load_a(at.y, last), load_a(at.z, last), load_a(at.w, last));
}

// What columns n .. n + 4 of B add to the cells at which its four stored rows are.
fn b_columns(base: u32, n: u32) -> vec4<u32> {
    if B_TRANSPOSED {
        return four_rows(base, p.b_row, n, p.n);
    }
    return vec4<u32>(base + clamped(n, p.n) / CELL);
}

// What rows k .. k + 4 of B add to them.
fn b_rows(k: u32) -> vec4<u32> {
    if B_TRANSPOSED {
        return vec4<u32>(clamped(k, p.k) / CELL);
    }
    return four_rows(0u, p.b_row, k, p.k);
}

// Which of the four elements of a stored row that begin at row k, column n of B is the last that exists.
fn b_last(k: u32, n: u32) -> u32 {
    if B_TRANSPOSED {
        return last_below(clamped(k, p.k), p.k);
    }
    return last_below(clamped(n, p.n), p.n);
}

// Four rows and columns of B whose stored rows are in the cells `at`; column i of the result is a row of B.
fn load_b_at(at: vec4<u32>, last: u32) -> mat4x4<f32> {
    let stored = mat4x4<f32>(load_b(at.x, last), load_b(at.y, last), load_b(at.z, last), load_b(at.w, last));
    if B_TRANSPOSED {
        return transpose(stored);
    }
    return stored;
}

// B[k .. k + 4, n .. n + 4]; column i of the result is row k + i of B.
fn load_b_block(base: u32, k: u32, n: u32) -> mat4x4<f32> {
    return load_b_at(b_columns(base, n) + b_rows(k), b_last(k, n));
}

// The block of A that begins at k, with zeros beyond the end of k.
fn mask_a_block(block: mat4x4<f32>, k: u32) -> mat4x4<f32> {
    let exists = (k + vec4<u32>(0u, 1u, 2u, 3u)) < vec4<u32>(p.k);
    let zero = vec4<f32>();
    return mat4x4<f32>(
        select(zero, block[0], exists),
        select(zero, block[1], exists),
        select(zero, block[2], exists),
        select(zero, block[3], exists),
    );
}

// The block of B that begins at k, with zeros beyond the end of k.
fn mask_b_block(block: mat4x4<f32>, k: u32) -> mat4x4<f32> {
    let zero = vec4<f32>();
    return mat4x4<f32>(
        select(zero, block[0], k < p.k),
        select(zero, block[1], k + 1u < p.k),
        select(zero, block[2], k + 2u < p.k),
        select(zero, block[3], k + 3u < p.k),
    );
}
