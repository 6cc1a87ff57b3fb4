// 4 x 4 blocks of A and B, whichever way they are stored; elements beyond m, n or k read as zero.
//
// A_TRANSPOSED: A is stored (K, M), else (M, K). B_TRANSPOSED: B is stored (N, K), else (K, N).

// A[m .. m + 4, k .. k + 4]; column i of the result is row m + i of A.
fn load_a_block(base: u32, m: u32, k: u32) -> mat4x4<f32> {
    if A_TRANSPOSED {
        let valid = remaining(m, p.m);
        let at = base + k * p.a_row + m / CELL;
        return transpose(mat4x4<f32>(
            load_a(at, select(0u, valid, k < p.k)),
            load_a(at + p.a_row, select(0u, valid, k + 1u < p.k)),
            load_a(at + 2u * p.a_row, select(0u, valid, k + 2u < p.k)),
            load_a(at + 3u * p.a_row, select(0u, valid, k + 3u < p.k)),
        ));
    }
    let valid = remaining(k, p.k);
    let at = base + m * p.a_row + k / CELL;
    return mat4x4<f32>(
        load_a(at, select(0u, valid, m < p.m)),
        load_a(at + p.a_row, select(0u, valid, m + 1u < p.m)),
        load_a(at + 2u * p.a_row, select(0u, valid, m + 2u < p.m)),
        load_a(at + 3u * p.a_row, select(0u, valid, m + 3u < p.m)),
    );
}

// B[k .. k + 4, n .. n + 4]; column i of the result is row k + i of B.
fn load_b_block(base: u32, k: u32, n: u32) -> mat4x4<f32> {
    if B_TRANSPOSED {
        let valid = remaining(k, p.k);
        let at = base + n * p.b_row + k / CELL;
        return transpose(mat4x4<f32>(
            load_b(at, select(0u, valid, n < p.n)),
            load_b(at + p.b_row, select(0u, valid, n + 1u < p.n)),
            load_b(at + 2u * p.b_row, select(0u, valid, n + 2u < p.n)),
            load_b(at + 3u * p.b_row, select(0u, valid, n + 3u < p.n)),
        ));
    }
    let valid = remaining(n, p.n);
    let at = base + k * p.b_row + n / CELL;
    return mat4x4<f32>(
        load_b(at, select(0u, valid, k < p.k)),
        load_b(at + p.b_row, select(0u, valid, k + 1u < p.k)),
        load_b(at + 2u * p.b_row, select(0u, valid, k + 2u < p.k)),
        load_b(at + 3u * p.b_row, select(0u, valid, k + 3u < p.k)),
    );
}
