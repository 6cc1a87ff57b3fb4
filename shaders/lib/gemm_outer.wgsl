// Sums of one SIMD vector: 4 x 4 values of A, equal for all lanes, times a 4 x 4 block of B per lane.

// The product of a column of A and a row of B; column i of the result is row i of C.
fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a.x * b, a.y * b, a.z * b, a.w * b);
}

// sums + A[row .. row + 4, k .. k + 4] * b, one outer product after the other: then a row of b, once loaded, meets all four
// rows of A.
fn multiply(sums: mat4x4<f32>, base: u32, row: u32, k: u32, b: mat4x4<f32>) -> mat4x4<f32> {
    let a = transpose(load_a_block(base, row, k));
    var acc = sums;
    acc += outer(a[0], b[0]);
    acc += outer(a[1], b[1]);
    acc += outer(a[2], b[2]);
    acc += outer(a[3], b[3]);
    return acc;
}
