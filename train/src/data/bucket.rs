//! Batch shapes. Every distinct shape is a plan of its own, so few shapes are used.

use std::collections::BTreeSet;

use viral_model::config::LlavaConfig;
use viral_model::graph::BatchShape;

use super::sample::SampleShape;
use super::sampler::StepPlan;

/// Fewest target rows of a batch.
const MIN_TARGETS: usize = 16;
/// Fewest tokens of a sample.
const MIN_TOKENS: usize = 16;
/// Fewest positions that the last layer is computed for.
const MIN_TAIL: usize = 32;

/// The shape of a micro-batch, and so the key of its plan.
///
/// Lengths are rounded up here and nowhere else: tokens to a multiple of 8 up to 512, of 16 up to 1024, of 32 above, which
/// wastes at most a sixteenth of the rows from 128 tokens on and half of that on average; targets, of which only the
/// head and the cross-entropy see the padding, to a multiple of 16 up to 128 and of an eighth of a power of two above; the
/// positions of the last layer, a small part of the work, to a power of two. Batch and images are exact: a row of padding
/// would cost a whole sequence, a picture of padding a whole run of the vision encoder. Tiles, of which a picture may have
/// any of several numbers, are exact up to 8 and then rounded to an eighth of a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// Samples (B).
    pub batch: usize,
    /// Tokens of a sample, padding included (T).
    pub tokens: usize,
    /// Positions at the end of a sample, padding included, among which all targets are (U); all, if they are more than half.
    pub tail: usize,
    /// Pictures that go through the vision encoder (I).
    pub images: usize,
    /// Tiles of these pictures that go through it besides, padding included (J).
    pub tiles: usize,
    /// Target rows, padding included (S).
    pub targets: usize,
}

impl Bucket {
    /// The bucket of a micro-batch of samples with these shapes.
    pub fn of(shapes: &[SampleShape]) -> Self {
        let tokens = round_tokens(shapes.iter().map(|shape| shape.tokens as usize).max().unwrap_or(0));
        let before = shapes.iter().filter(|shape| shape.targets > 0).map(|shape| shape.before as usize).min();
        let targets: usize = shapes.iter().map(|shape| shape.targets as usize).sum();
        let tiles: usize = shapes.iter().map(|shape| shape.tiles as usize).sum();
        Self {
            batch: shapes.len(),
            tokens,
            tail: round_tail(tokens.saturating_sub(before.unwrap_or(tokens)), tokens),
            images: shapes.iter().filter(|shape| shape.visual > 0).count(),
            tiles: tiles.next_multiple_of((tiles.next_power_of_two() / 8).max(1)),
            targets: round_targets(targets),
        }
    }

    /// The extents of its graph for a model.
    pub fn shape(&self, model: &LlavaConfig) -> BatchShape {
        BatchShape::new(model, self.batch, self.tokens, self.images, self.targets)
            .with_tiles(self.tiles)
            .with_tail(self.tail)
    }
}

/// Every bucket that a run will meet, given the shape of each record.
pub fn buckets(plan: &StepPlan, shapes: &[SampleShape]) -> BTreeSet<Bucket> {
    let mut buckets = BTreeSet::new();
    for step in 0..plan.steps() {
        for micro_batch in plan.step(step).micro_batches {
            let shapes: Vec<_> = micro_batch.iter().filter_map(|&record| shapes.get(record).copied()).collect();
            buckets.insert(Bucket::of(&shapes));
        }
    }
    buckets
}

fn round_tokens(tokens: usize) -> usize {
    let multiple = match tokens {
        0..=512 => 8,
        513..=1024 => 16,
        _ => 32,
    };
    tokens.max(MIN_TOKENS).next_multiple_of(multiple)
}

fn round_tail(positions: usize, tokens: usize) -> usize {
    let rounded = positions.next_power_of_two().max(MIN_TAIL);
    if 2 * rounded > tokens { tokens } else { rounded }
}

fn round_targets(targets: usize) -> usize {
    let multiple = (targets.next_power_of_two() / 8).max(MIN_TARGETS);
    targets.max(1).next_multiple_of(multiple)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Order;
    use crate::data::sampler::Sampler;

    fn shape(tokens: u32, visual: u32, targets: u32) -> SampleShape {
        SampleShape { tokens, visual, tiles: 0, targets, before: 0 }
    }

    #[test]
    fn shapes_are_rounded_up() {
        let lengths = [0, 1, 16, 17, 256, 257, 1024, 1025, 2048];
        assert_eq!(lengths.map(round_tokens), [16, 16, 16, 24, 256, 264, 1024, 1056, 2048]);
        let bucket = Bucket::of(&[shape(20, 4, 9), shape(33, 0, 8), shape(5, 1, 0)]);
        assert_eq!(bucket, Bucket { batch: 3, tokens: 40, tail: 40, images: 2, tiles: 0, targets: 32 });
        let tiled = |tiles| Bucket::of(&[SampleShape { tiles, ..shape(20, 4, 9) }]).tiles;
        assert_eq!([1, 7, 9, 16, 17, 30].map(tiled), [1, 7, 10, 16, 20, 32]);
        assert_eq!([0, 1, 16, 17, 128, 129, 257, 1000].map(round_targets), [16, 16, 16, 32, 128, 160, 320, 1024]);
    }

    #[test]
    fn all_targets_are_in_the_tail() {
        // 104 tokens with padding.
        let tail = |befores: &[u32]| {
            let samples: Vec<_> = befores.iter().map(|&before| SampleShape { before, ..shape(100, 4, 9) }).collect();
            Bucket::of(&samples).tail
        };
        assert_eq!([103, 72, 71, 0].map(|before| tail(&[before])), [32, 32, 104, 104]);
        assert_eq!(tail(&[95, 80]), 32);
        // Nothing is to be predicted where there are no targets.
        let silent = SampleShape { targets: 0, before: 7, ..shape(7, 0, 0) };
        assert_eq!(Bucket::of(&[silent, SampleShape { before: 90, ..shape(100, 4, 9) }]).tail, 32);
        assert_eq!(Bucket::of(&[SampleShape { tokens: 100, ..silent }]).tail, 32);
    }

    #[test]
    fn a_run_names_its_buckets_ahead() {
        let shapes = [shape(10, 4, 3), shape(40, 4, 3), shape(12, 0, 3)];
        let plan = StepPlan::new(Sampler::new(Order::Sequential, 0, 2, 1, vec![1, 1, -1]), 1, 0);
        let expected = [
            Bucket { batch: 1, tokens: 16, tail: 16, images: 0, tiles: 0, targets: 16 },
            Bucket { batch: 2, tokens: 40, tail: 40, images: 2, tiles: 0, targets: 16 },
        ];
        assert!(buckets(&plan, &shapes).into_iter().eq(expected));
    }
}
