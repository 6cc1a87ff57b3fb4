// Functions of one element that WGSL lacks, for generated kernels. F and U are f32 and u32, or vec4s of them.

// Error function as a ratio of polynomials on |x| <= 4, where it reaches 1 to f32 precision. The coefficients are the
// minimax fit used by XLA and Eigen; the largest error is about 1e-7 relative.
fn erf(x: F) -> F {
    let t = clamp(x, F(-4.0), F(4.0));
    let s = t * t;
    var p = F(-2.72614225801306e-10);
    p = p * s + F(2.77068142495902e-08);
    p = p * s + F(-2.10102402082508e-06);
    p = p * s + F(-5.69250639462346e-05);
    p = p * s + F(-7.34990630326855e-04);
    p = p * s + F(-2.95459980854025e-03);
    p = p * s + F(-1.60960333262415e-02);
    var q = F(-1.45660718464996e-05);
    q = q * s + F(-2.13374055278905e-04);
    q = q * s + F(-1.68282697438203e-03);
    q = q * s + F(-7.37332916720468e-03);
    q = q * s + F(-1.42647390514189e-02);
    return t * p / q;
}

// The output permutation of PCG over 32 bits: a bijection that spreads every input bit over the word.
fn pcg(x: U) -> U {
    let state = x * U(747796405u) + U(2891336453u);
    let word = ((state >> ((state >> U(28u)) + U(4u))) ^ state) * U(277803737u);
    return (word >> U(22u)) ^ word;
}

// Uniform reals in [0, 1) with 24 random bits, as a pure function of a counter and a key.
fn uniform01(counter: U, key: U) -> F {
    let bits = pcg(pcg(counter) + key);
    return F(bits >> U(8u)) * F(5.9604644775390625e-08);
}
