//! a step's loss is the mean over its micro-batches, each a mean of its own. So four samples in one micro-batch and in four
//! are different means of the same four losses and gradients.

use std::path::Path;

use crate::support::cases::{micro_batches, open};
use crate::support::{device, relative_distance};
use viral_train::Config;
use viral_train::config::{Assignment, Overrides};
use viral_train::data::buckets;
use viral_train::engine::Session;
use viral_train::run::Outcome;

/// What padding and another order of summation may change.
const ROUNDING: f64 = 2e-6;

/// Gradients of all tensors, one after the other, and figures of every step; nothing is learnt.
fn steps(batch: usize, accumulation: usize, alignment: bool) -> Vec<(Outcome, Vec<f64>)> {
    let keys = [
        format!("train.batch={batch}"),
        format!("train.accumulation={accumulation}"),
        format!("train.steps={}", 4 / (batch * accumulation)),
        format!("vra.enabled={alignment}"),
        "train.lr=0".into(),
        "train.projector_lr=0".into(),
    ];
    let set = keys.iter().map(|key| Assignment::from_set(key).unwrap()).collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/objectives/config.toml");
    let config = Config::load(&file, &Overrides { set, ..Overrides::default() }).unwrap();
    let bundle = open(&config);
    let buckets = buckets(&bundle.step_plan(), bundle.dataset.shapes());
    let mut session = Session::new(&bundle, device(), &buckets).unwrap_or_else(|error| panic!("{error}"));
    let mut steps = Vec::new();
    for micro_batch in micro_batches(&bundle) {
        session.micro_batch(&micro_batch).unwrap();
        if micro_batch.index + 1 == micro_batch.of {
            let gradients = session.gradients().unwrap();
            let gradients = gradients.into_values().flat_map(|gradient| gradient.values).map(f64::from).collect();
            session.step(micro_batch.step, 1.0).unwrap();
            steps.push((session.last().unwrap().unwrap(), gradients));
        }
    }
    steps
}

#[test]
fn accumulation_is_a_mean_of_means() {
    for alignment in [false, true] {
        let singles = steps(1, 1, alignment);
        let [whole, accumulated] = [steps(4, 1, alignment), steps(1, 4, alignment)].map(|mut steps| {
            assert_eq!(steps.len(), 1);
            steps.remove(0)
        });
        let tokens: Vec<f64> = singles.iter().map(|(outcome, _)| outcome.supervised_tokens as f64).collect();
        assert!(tokens.windows(2).any(|pair| pair[0] != pair[1]), "samples of one length tell nothing apart");
        let all: f64 = tokens.iter().sum();
        let even = vec![0.25; 4];
        let by_tokens: Vec<f64> = tokens.iter().map(|tokens| tokens / all).collect();
        let mean = |weights: &[f64], figure: fn(&Outcome) -> f64| -> f64 {
            singles.iter().zip(weights).map(|((outcome, _), weight)| weight * figure(outcome)).sum()
        };
        let close =
            |found: f64, expected: f64| assert!((found - expected).abs() < ROUNDING * 10.0, "{found} {expected}");

        close(accumulated.0.loss_lm, mean(&even, |outcome| outcome.loss_lm));
        close(whole.0.loss_lm, mean(&by_tokens, |outcome| outcome.loss_lm));
        assert!((whole.0.loss_lm - accumulated.0.loss_lm).abs() > 1e-3);
        if alignment {
            // The picture of the third sample is cut and the second has none: two of four contribute.
            let contributing = singles.iter().filter(|(outcome, _)| outcome.loss_vra != 0.0).count();
            assert_eq!(contributing, 2);
            close(accumulated.0.loss_vra, mean(&even, |outcome| outcome.loss_vra));
            close(whole.0.loss_vra, 2.0 * mean(&even, |outcome| outcome.loss_vra));
            continue;
        }
        for (weights, found) in [(&even, &accumulated), (&by_tokens, &whole)] {
            let mut expected = vec![0.0; found.1.len()];
            for ((_, gradient), weight) in singles.iter().zip(weights.iter()) {
                expected.iter_mut().zip(gradient).for_each(|(sum, value)| *sum += weight * value);
            }
            let error = relative_distance(&found.1, &expected);
            assert!(error < ROUNDING, "{error:e}");
        }
    }
}
