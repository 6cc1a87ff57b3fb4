//! The order in which an epoch visits the records, and how that order falls into optimiser steps.

use std::sync::Mutex;

use super::rng::Mt19937;
use crate::config::Order;

/// Orders the records of an epoch.
///
/// Epoch `e` draws from a generator freshly seeded with `torch.manual_seed(seed + e)`, so any epoch's order can be had
/// without replaying the ones before it. Within the epoch the draws are those of the reference, in its order.
#[derive(Clone, Debug)]
pub struct Sampler {
    order: Order,
    seed: u64,
    /// Records in a micro-batch.
    batch: usize,
    /// Micro-batches in an optimiser step; the reference's "world size" on one device.
    accumulation: usize,
    /// Words of each record; negative for records without a picture.
    lengths: Vec<i64>,
}

impl Sampler {
    /// A sampler over `lengths.len()` records. A length is the number of whitespace-separated words over all turns,
    /// negative if the record has no picture, never 0. Zero `batch` or `accumulation` count as 1.
    pub fn new(order: Order, seed: u64, batch: usize, accumulation: usize, lengths: Vec<i64>) -> Self {
        Self { order, seed, batch: batch.max(1), accumulation: accumulation.max(1), lengths }
    }

    /// The order of epoch `epoch`: a permutation of `0..records`.
    pub fn epoch(&self, epoch: u64) -> Vec<usize> {
        let mut rng = Mt19937::new(self.seed.wrapping_add(epoch));
        match self.order {
            Order::Sequential => (0..self.lengths.len()).collect(),
            Order::Shuffled => rng.permutation(self.lengths.len()),
            Order::GroupByModalityLength => {
                modality_length_grouped(&self.lengths, self.batch, self.accumulation, &mut rng)
            }
        }
    }
}

/// The optimiser steps of a run: which records each of them sees.
///
/// An epoch is cut into micro-batches of `batch` records and these into steps of `accumulation` micro-batches. Nothing
/// is dropped: the last micro-batch of an epoch may be smaller, the last step may have fewer micro-batches (its losses
/// are averaged over those it has), and a step never reaches into the next epoch. So an epoch of `n` records has
/// `ceil(n / (batch * accumulation))` steps, as current versions of the Hugging Face `Trainer` count them; a run longer
/// than an epoch starts again at the front of the data with the next epoch's order.
#[derive(Debug)]
pub struct StepPlan {
    sampler: Sampler,
    steps: u64,
    /// The epoch that was asked for last, with its order.
    current: Mutex<Option<(u64, Vec<usize>)>>,
}

impl StepPlan {
    /// Plans `steps` optimiser steps, or, if that is 0, as many as `epochs` passes over the data take.
    pub fn new(sampler: Sampler, epochs: u64, steps: u64) -> Self {
        let steps = if steps > 0 { steps } else { epochs.saturating_mul(steps_per_epoch(&sampler)) };
        Self { sampler, steps, current: Mutex::new(None) }
    }

    /// Optimiser steps of the run.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Optimiser steps of one pass over the data.
    pub fn steps_per_epoch(&self) -> u64 {
        steps_per_epoch(&self.sampler)
    }

    /// The micro-batches of step `step` (0-based) as record positions; empty if there are no records.
    pub fn step(&self, step: u64) -> Step {
        let per_epoch = self.steps_per_epoch();
        if per_epoch == 0 {
            return Step { epoch: 0, micro_batches: Vec::new() };
        }
        let (epoch, index) = (step / per_epoch, (step % per_epoch) as usize);
        let width = self.sampler.batch * self.sampler.accumulation;
        // A panic elsewhere cannot leave the pair half-written, so a poisoned lock is still sound.
        let mut current = self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let order = match current.take() {
            Some((known, order)) if known == epoch => order,
            _ => self.sampler.epoch(epoch),
        };
        let records = order.iter().skip(index * width).take(width).copied().collect::<Vec<_>>();
        *current = Some((epoch, order));
        Step { epoch, micro_batches: records.chunks(self.sampler.batch).map(<[usize]>::to_vec).collect() }
    }
}

/// The records of one optimiser step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Pass over the data, 0-based.
    pub epoch: u64,
    /// Record positions, one list a micro-batch.
    pub micro_batches: Vec<Vec<usize>>,
}

fn steps_per_epoch(sampler: &Sampler) -> u64 {
    sampler.lengths.len().div_ceil(sampler.batch * sampler.accumulation) as u64
}

/// LLaVA `llava_trainer.py`, `get_modality_length_grouped_indices`.
fn modality_length_grouped(lengths: &[i64], batch: usize, chunks: usize, rng: &mut Mt19937) -> Vec<usize> {
    if lengths.iter().all(|&length| length > 0) || lengths.iter().all(|&length| length < 0) {
        // With text only the reference sorts the negative lengths themselves, so the shortest record comes first.
        return length_grouped(lengths, batch, chunks, rng);
    }
    let mut grouped = |sign: i64| {
        let members: Vec<usize> = (0..lengths.len()).filter(|&index| lengths[index] * sign > 0).collect();
        let member_lengths: Vec<i64> = members.iter().map(|&index| lengths[index] * sign).collect();
        let order = length_grouped(&member_lengths, batch, chunks, rng);
        let order: Vec<usize> = order.into_iter().map(|member| members[member]).collect();
        let mut megabatches: Vec<Vec<usize>> = order.chunks(batch * chunks).map(<[usize]>::to_vec).collect();
        let last = megabatches.pop().unwrap_or_default();
        (megabatches, last)
    };
    let (mut megabatches, mut rest) = grouped(1);
    let (text_megabatches, text_rest) = grouped(-1);
    megabatches.extend(text_megabatches);
    rest.extend(text_rest);
    rest.sort_unstable();

    let shuffled = rng.permutation(megabatches.len());
    let mut order: Vec<usize> = shuffled.into_iter().flat_map(|index| megabatches[index].iter().copied()).collect();
    order.extend(rest);
    order
}

/// LLaVA `llava_trainer.py`, `get_length_grouped_indices`: a random permutation, sorted by length within each
/// megabatch of `batch * chunks` records and dealt out so that the chunks come out about equally long.
fn length_grouped(lengths: &[i64], batch: usize, chunks: usize, rng: &mut Mt19937) -> Vec<usize> {
    let mut order = Vec::with_capacity(lengths.len());
    for megabatch in rng.permutation(lengths.len()).chunks(batch * chunks) {
        let mut megabatch = megabatch.to_vec();
        megabatch.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
        order.extend(split_to_even_chunks(&megabatch, lengths, chunks).into_iter().flatten());
    }
    order
}

/// LLaVA `llava_trainer.py`, `split_to_even_chunks`: gives the next record to the chunk with the smallest total, ties to
/// the first, until a chunk is full; a megabatch that does not divide evenly is dealt round robin.
fn split_to_even_chunks(indices: &[usize], lengths: &[i64], chunks: usize) -> Vec<Vec<usize>> {
    if !indices.len().is_multiple_of(chunks) {
        return (0..chunks).map(|start| indices.iter().skip(start).step_by(chunks).copied().collect()).collect();
    }
    let capacity = indices.len() / chunks;
    let mut dealt = vec![(0, Vec::with_capacity(capacity)); chunks];
    for &index in indices {
        let open = dealt.iter_mut().filter(|(_, chunk)| chunk.len() < capacity);
        if let Some((total, chunk)) = open.min_by_key(|(total, _)| *total) {
            *total += lengths[index];
            chunk.push(index);
        }
    }
    dealt.into_iter().map(|(_, chunk)| chunk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Word counts of 23 made-up records; every fourth is text only.
    fn lengths() -> Vec<i64> {
        (0..23i64).map(|i| (3 + (i * 7) % 11 + (i * i) % 5) * if i % 4 == 3 { -1 } else { 1 }).collect()
    }

    fn grouped(seed: u64, batch: usize, accumulation: usize, lengths: Vec<i64>) -> Vec<usize> {
        Sampler::new(Order::GroupByModalityLength, seed, batch, accumulation, lengths).epoch(0)
    }

    #[test]
    fn chunks_are_dealt_as_the_specification_shows() {
        let lengths = [9, 3, 7, 5, 2, 8, 4, 6];
        let chunks = split_to_even_chunks(&[0, 5, 2, 7, 3, 6, 1, 4], &lengths, 4);
        assert_eq!(chunks, [[0, 4], [5, 1], [2, 6], [7, 3]]);
    }

    #[test]
    fn uneven_megabatches_are_dealt_round_robin() {
        let chunks = split_to_even_chunks(&[4, 3, 2, 1, 0], &[1; 5], 3);
        assert_eq!(chunks, [vec![4, 1], vec![3, 0], vec![2]]);
    }

    /// Literals: the reference's functions under torch 2.1.2 after `torch.manual_seed(seed)`.
    #[test]
    fn mixed_modalities_equal_the_reference() {
        assert_eq!(
            grouped(42, 2, 2, lengths()),
            [13, 21, 4, 10, 14, 5, 6, 16, 3, 19, 7, 15, 18, 20, 9, 8, 17, 22, 12, 2, 0, 1, 11]
        );
        assert_eq!(
            grouped(0, 3, 1, lengths()),
            [3, 15, 11, 17, 20, 2, 21, 22, 16, 9, 10, 5, 14, 1, 0, 12, 6, 4, 7, 8, 13, 18, 19]
        );
        assert_eq!(
            grouped(1, 4, 3, lengths()),
            [17, 9, 8, 22, 14, 6, 13, 10, 12, 18, 1, 5, 0, 2, 3, 4, 7, 11, 15, 16, 19, 20, 21]
        );
    }

    #[test]
    fn a_single_modality_equals_the_reference() {
        assert_eq!(
            grouped(5, 2, 3, lengths().iter().map(|length| length.abs()).collect()),
            [3, 11, 18, 22, 8, 21, 17, 16, 6, 13, 7, 1, 12, 15, 14, 0, 9, 20, 2, 19, 4, 5, 10]
        );
        assert_eq!(
            grouped(5, 2, 3, lengths().iter().map(|length| -length.abs()).collect()),
            [11, 22, 8, 21, 18, 3, 16, 13, 1, 7, 6, 17, 0, 15, 20, 9, 12, 14, 19, 2, 5, 4, 10]
        );
    }

    #[test]
    fn every_order_is_a_permutation_and_repeats() {
        for order in [Order::Sequential, Order::Shuffled, Order::GroupByModalityLength] {
            let sampler = Sampler::new(order, 9, 3, 2, lengths());
            for epoch in 0..3 {
                let drawn = sampler.epoch(epoch);
                assert_eq!(drawn, sampler.epoch(epoch));
                let mut sorted = drawn.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..23).collect::<Vec<_>>());
            }
            assert_eq!(order == Order::Sequential, sampler.epoch(0) == sampler.epoch(1));
        }
        assert!(grouped(0, 2, 2, Vec::new()).is_empty());
    }

    #[test]
    fn steps_keep_partial_batches_and_stay_within_an_epoch() {
        let sampler = Sampler::new(Order::Sequential, 0, 2, 2, vec![1; 11]);
        let plan = StepPlan::new(sampler, 2, 0);
        assert_eq!((plan.steps_per_epoch(), plan.steps()), (3, 6));
        let step = |epoch, micro_batches: &[&[usize]]| Step {
            epoch,
            micro_batches: micro_batches.iter().map(|batch| batch.to_vec()).collect(),
        };
        assert_eq!(plan.step(0), step(0, &[&[0, 1], &[2, 3]]));
        assert_eq!(plan.step(2), step(0, &[&[8, 9], &[10]]));
        assert_eq!(plan.step(3), step(1, &[&[0, 1], &[2, 3]]));
    }

    #[test]
    fn steps_override_epochs_and_wrap_around() {
        let sampler = Sampler::new(Order::Shuffled, 3, 4, 1, vec![1; 6]);
        let plan = StepPlan::new(sampler.clone(), 1, 5);
        assert_eq!(plan.steps(), 5);
        assert_eq!(plan.step(4).epoch, 2);
        assert_eq!(plan.step(4).micro_batches, [sampler.epoch(2)[..4].to_vec()]);
        assert_eq!(StepPlan::new(sampler, 3, 0).steps(), 6);
    }

    #[test]
    fn no_records_give_no_steps() {
        let plan = StepPlan::new(Sampler::new(Order::Shuffled, 0, 4, 1, Vec::new()), 3, 0);
        assert_eq!(plan.steps(), 0);
        assert!(plan.step(0).micro_batches.is_empty());
    }
}
