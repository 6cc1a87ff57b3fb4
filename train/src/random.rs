//! Random values for pictures and tensors that are the same on every machine.

use crate::data::rng::Mt19937;

/// A named stream of random values. Streams of different names are independent, so adding one changes no other.
pub(crate) struct Random(Mt19937);

impl Random {
    /// The stream `name` of a seed.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        // 64-bit FNV-1a, folded to the 32 bits that the generator takes.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64 ^ seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(Mt19937::new(hash ^ (hash >> 32)))
    }

    /// A whole number in `0..below`; 0 if that is empty.
    pub(crate) fn below(&mut self, below: usize) -> usize {
        self.0.next_u32() as usize % below.max(1)
    }

    /// One of the items.
    pub(crate) fn pick<T: Copy, const N: usize>(&mut self, items: [T; N]) -> T {
        items[self.below(N)]
    }

    /// `len` values spread evenly over `-bound..bound`.
    pub(crate) fn uniform(&mut self, len: usize, bound: f64) -> Vec<f32> {
        (0..len).map(|_| ((f64::from(self.0.next_u32()) / f64::from(1u32 << 31) - 1.0) * bound) as f32).collect()
    }

    /// `len` values with mean 0 and deviation `std`, close to normal: sums of four uniform values, which unlike
    /// logarithms and sines come out the same bits everywhere.
    pub(crate) fn normal(&mut self, len: usize, std: f64) -> Vec<f32> {
        // A uniform value on (-1/2, 1/2) has variance 1/12, four of them have 1/3.
        let scale = std * 3f64.sqrt() / (1u64 << 32) as f64;
        (0..len)
            .map(|_| {
                let sum: f64 = (0..4).map(|_| f64::from(self.0.next_u32()) - f64::from(1u32 << 31)).sum();
                (sum * scale) as f32
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_deviation_asked_for() {
        let values = Random::new(1, "x").normal(40_000, 0.5);
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.01 && (variance.sqrt() - 0.5).abs() < 0.01, "{mean} {variance}");
    }

    #[test]
    fn streams_differ_by_seed_and_name() {
        let draw = |seed, name| Random::new(seed, name).normal(4, 1.0);
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
    }
}
