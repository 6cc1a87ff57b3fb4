//! Random numbers as pure functions of a key that the host changes with every micro-batch.

use viral_compiler::types::DType;
use viral_compiler::{Graph, Value};

/// Streams of random numbers. Streams of different names are independent, so adding one changes no other; the same key
/// and name give the same numbers again, also in a run that was resumed.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// `u32[]` below 2^31: [`BatchInput::RandomKey`](super::BatchInput::RandomKey).
    pub key: Value,
}

impl Noise {
    /// Numbers from 0 on and below 1, multiples of 2^-24: element `i` in row-major order from counter `i`.
    pub fn uniform(self, g: &mut Graph, stream: &str, shape: &[usize]) -> Value {
        let counter = g.iota(&[shape.iter().product()], 0);
        let counter = g.reshape(counter, shape);
        // Neither summand reaches 2^31, so the sum does not wrap.
        let salt = g.constant(DType::U32, f64::from(salt(stream)), &[]);
        let key = g.reshape(self.key, &[]);
        let key = g.add(key, salt);
        g.uniform(counter, key)
    }

    /// Numbers of mean 0 and deviation 1 that are distributed normally.
    ///
    /// `sqrt(-2 ln(1 - u)) · cos(2π (v - 1/2))`, where `u` and `v` are streams of their own. Reference: G. E. P. Box and
    /// M. E. Muller, 1958. The angle stays within ±π, where devices compute a cosine well.
    pub fn normal(self, g: &mut Graph, stream: &str, shape: &[usize]) -> Value {
        let u = self.uniform(g, &format!("{stream}.radius"), shape);
        let v = self.uniform(g, &format!("{stream}.angle"), shape);
        let rest = g.one_minus(u);
        let log = g.log(rest);
        let square = g.scale(log, -2.0);
        let radius = g.sqrt(square);
        let turn = g.offset(v, -0.5);
        let angle = g.scale(turn, 2.0 * std::f64::consts::PI);
        let cosine = g.cos(angle);
        g.mul(radius, cosine)
    }
}

/// 31 bits that differ between streams: the FNV-1a hash of the name.
fn salt(name: &str) -> u32 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash >> 1
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use viral_compiler::eval::evaluate_outputs;
    use viral_compiler::tensor::Tensor;
    use viral_compiler::types::TensorType;

    use super::*;

    /// Normal numbers of two streams under one key.
    fn draw(key: f64) -> [Vec<f64>; 2] {
        let mut g = Graph::new();
        let key_leaf = g.input("key", DType::U32, &[]);
        for stream in ["a", "b"] {
            let x = Noise { key: key_leaf }.normal(&mut g, stream, &[100, 200]);
            g.output(stream, x);
        }
        g.verify().unwrap();
        let leaves = HashMap::from([("key".to_owned(), Tensor::new(TensorType::u32([]), vec![key]))]);
        let mut results = evaluate_outputs(&g, &leaves).unwrap();
        ["a", "b"].map(|stream| results.remove(stream).unwrap().data)
    }

    #[test]
    fn normal_numbers_have_the_moments_of_a_normal_distribution_and_streams_are_independent() {
        let [a, b] = draw(7.0);
        let n = a.len() as f64;
        let mean = |f: &dyn Fn(usize) -> f64| (0..a.len()).map(f).sum::<f64>() / n;
        // Deviations of these means over so many draws: 1, sqrt 2, sqrt 15 and sqrt 96 over sqrt n.
        for (power, expected, deviation) in [(1, 0.0, 1.0), (2, 1.0, 1.5), (3, 0.0, 3.9), (4, 3.0, 9.8)] {
            let moment = mean(&|i| a[i].powi(power));
            assert!((moment - expected).abs() < 4.0 * deviation / n.sqrt(), "moment {power}: {moment}");
        }
        let others = draw(8.0);
        for other in [&b, &others[0], &others[1]] {
            assert!(mean(&|i| a[i] * other[i]).abs() < 4.0 / n.sqrt());
        }
        let neighbours = mean(&|i| a[i] * a[(i + 1) % a.len()]);
        assert!(neighbours.abs() < 4.0 / n.sqrt(), "{neighbours}");
        assert_eq!(draw(7.0), [a, b]);
    }
}
