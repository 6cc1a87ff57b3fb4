//! The random numbers of PyTorch's CPU generator, so that a shuffled order equals the reference's.

/// Length of the generator's state in words.
const STATE: usize = 624;
/// Distance between the two words that a state update mixes.
const SHIFT: usize = 397;

/// The 32-bit Mersenne twister, seeded as `torch.manual_seed` seeds the CPU generator (ATen `MT19937RNGEngine.h`).
#[derive(Clone)]
pub struct Mt19937 {
    state: [u32; STATE],
    next: usize,
}

impl Mt19937 {
    /// The generator after `torch.manual_seed(seed)`: only the low 32 bits of the seed count.
    pub fn new(seed: u64) -> Self {
        let mut state = [0; STATE];
        let mut word = seed as u32;
        for (index, slot) in state.iter_mut().enumerate() {
            if index > 0 {
                word = 1_812_433_253u32.wrapping_mul(word ^ (word >> 30)).wrapping_add(index as u32);
            }
            *slot = word;
        }
        Self { state, next: STATE }
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.next == STATE {
            self.refill();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// A random order of `0..len`, equal to `torch.randperm(len)` (ATen `TensorFactories.cpp`, `randperm_cpu`).
    ///
    /// PyTorch shuffles this way while `len < 2^32 / 20`, which no dataset of one machine reaches.
    pub fn permutation(&mut self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for index in 0..len.saturating_sub(1) {
            let offset = self.next_u32() as usize % (len - index);
            order.swap(index, index + offset);
        }
        order
    }

    fn refill(&mut self) {
        for index in 0..STATE {
            let mixed = (self.state[index] & 0x8000_0000) | (self.state[(index + 1) % STATE] & 0x7fff_ffff);
            let twist = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[index] = self.state[(index + SHIFT) % STATE] ^ (mixed >> 1) ^ twist;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The default seed's first and 10,000th output, which ISO C++ [rand.predef] fixes for `std::mt19937`.
    #[test]
    fn matches_the_standard_vectors() {
        let mut rng = Mt19937::new(5489);
        assert_eq!(rng.next_u32(), 3_499_211_612);
        let last = (1..10_000).map(|_| rng.next_u32()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    /// Literals from torch 2.1.2: `manual_seed(s); randperm(10); randperm(7)`.
    #[test]
    fn permutations_equal_torch() {
        for (seed, ten, seven) in [
            (0, [4, 1, 7, 5, 3, 9, 0, 8, 6, 2], [5, 6, 3, 2, 4, 0, 1]),
            (42, [2, 6, 1, 8, 4, 5, 0, 9, 3, 7], [0, 5, 6, 1, 4, 2, 3]),
        ] {
            let mut rng = Mt19937::new(seed);
            assert_eq!(rng.permutation(10), ten);
            assert_eq!(rng.permutation(7), seven);
        }
        let long = Mt19937::new(7).permutation(1000);
        assert_eq!(long[..5], [615, 284, 599, 580, 347]);
        assert_eq!(long[995..], [482, 594, 570, 477, 409]);
    }

    #[test]
    fn tiny_permutations_draw_nothing() {
        let mut rng = Mt19937::new(1);
        assert!(rng.permutation(0).is_empty());
        assert_eq!(rng.permutation(1), [0]);
        assert_eq!(rng.next_u32(), Mt19937::new(1).next_u32());
    }
}
