// Sums of one SIMD vector: 4 x 4 values of A, equal for all lanes, times a 4 x 4 block of B per lane.

// The product of a column of A and a row of B; column i of the result is row i of C.
fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a.x * b, a.y * b, a.z * b, a.w * b);
}

// sums + a * b, one outer product after the other: then a row of b, once loaded, meets all four rows of A. Column i of a and
// of the sums is row i.
fn add_outer(sums: mat4x4<f32>, a: mat4x4<f32>, b: mat4x4<f32>) -> mat4x4<f32> {
    let columns = transpose(a);
    var acc = sums;
    acc += outer(columns[0], b[0]);
    acc += outer(columns[1], b[1]);
    acc += outer(columns[2], b[2]);
    acc += outer(columns[3], b[3]);
    return acc;
}
