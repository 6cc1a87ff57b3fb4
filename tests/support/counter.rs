//! Contents of tensors out of their names: the same numbers as `tests/reference/counter.py`, so no weights need be stored.

/// Multiples of 2^-23 in [-1, 1): splitmix64 from the name's FNV-1a hash on, its upper 24 bits.
pub(crate) fn uniform(name: &str) -> impl Iterator<Item = f64> + use<> {
    let hash = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let start = name.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    (1..).map(move |index: u64| {
        let x = start.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let x = x ^ (x >> 31);
        (x >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}

/// What the tensor of this canonical name holds.
pub(crate) fn content(name: &str, shape: &[usize]) -> Vec<f32> {
    let (base, scale) = distribution(name, shape);
    uniform(name).take(shape.iter().product()).map(|x| (base + scale * x) as f32).collect()
}

fn distribution(name: &str, shape: &[usize]) -> (f64, f64) {
    if name.ends_with("lambda1") {
        (0.5, 0.2)
    } else if name.ends_with("norm_mean") {
        (0.45, 0.05)
    } else if name.ends_with("norm_std") {
        (0.27, 0.05)
    } else if name.contains("norm") && name.ends_with("weight") {
        (1.0, 0.2)
    } else if name.ends_with("bias") {
        (0.0, 0.1)
    } else if ["pos", "token", "class_embedding", "newline"].iter().any(|word| name.contains(word)) {
        (0.0, 0.8)
    } else {
        let gain = if name.contains("lora_B") { 0.2 } else { 1.0 };
        (0.0, gain * (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt())
    }
}

/// Euclidean norm, and products with two random vectors: another tensor differs in one of them.
pub(crate) fn probe(name: &str, values: &[f64]) -> [f64; 3] {
    let product = |k| uniform(&format!("probe.{k}.{name}")).zip(values).map(|(a, b)| a * b).sum();
    [values.iter().map(|x| x * x).sum::<f64>().sqrt(), product(0), product(1)]
}
