//! Evaluation on samples that a run does not learn from: right, harmless, and what follows from it.

use std::fs;
use std::path::Path;

use crate::support::cases::Case;
use crate::support::runs::{Run, file_names};
use viral_train::Config;
use viral_train::config::{HeldOut, Kept};
use viral_train::run::{StepMetrics, Validation};

/// Pictures and text, accumulation, dropout, evaluated on what it learns from.
fn config() -> Config {
    let mut config = Case::named("gqa").config();
    config.lora.dropout = 0.2;
    config.train.steps = 3;
    config.train.save_every = 0;
    config.train.keep_checkpoints = 1;
    config.train.validate_every = 1;
    config.data.validation = Some(HeldOut::File(config.data.train.clone()));
    config
}

/// Language-model losses of the evaluations, by steps done.
fn validations(metrics: &[StepMetrics]) -> Vec<(u64, Validation)> {
    metrics.iter().filter_map(|step| Some((step.step + 1, step.validation.clone()?))).collect()
}

#[test]
fn an_evaluation_is_what_training_would_have_measured() {
    let mut config = config();
    // Nothing is learnt and nothing dropped, so the steps of a pass measure the file.
    config.lora.dropout = 0.0;
    (config.train.lr, config.train.projector_lr) = (0.0, 0.0);
    (config.train.batch, config.train.accumulation) = (2, 1);
    (config.train.steps, config.train.validate_every) = (4, 0);
    let metrics = Run::new(&config).metrics();
    let [(4, validation)] = &validations(&metrics)[..] else { panic!("one evaluation, after the last step") };
    let supervised: u64 = metrics.iter().map(|step| step.supervised_tokens).sum();
    assert_eq!((validation.samples, validation.supervised_tokens), (8, supervised));
    let lm = metrics.iter().map(|step| step.loss_lm * step.supervised_tokens as f64).sum::<f64>() / supervised as f64;
    assert!((validation.loss_lm - lm).abs() < 1e-6 * lm, "{} and {lm}", validation.loss_lm);
    // One, two, two and no pictures a step.
    let vra =
        metrics.iter().zip([1.0, 2.0, 2.0, 0.0]).map(|(step, pictures)| step.loss_vra * pictures).sum::<f64>() / 5.0;
    assert!((validation.loss_vra - vra).abs() < 1e-6, "{} and {vra}", validation.loss_vra);
    assert_eq!(validation.loss, validation.loss_lm + config.vra.weight * validation.loss_vra);
}

#[test]
fn a_run_that_is_evaluated_learns_the_same() {
    let config = config();
    let evaluated = Run::new(&config);
    let mut alone = config.clone();
    alone.data.validation = None;
    let alone = Run::new(&alone);
    assert!(evaluated.bits().adapter == alone.bits().adapter);
    let without = |step: StepMetrics| StepMetrics {
        seconds: 0.0,
        tokens_per_second: 0.0,
        device_bytes: 0,
        host_bytes: None,
        validation: None,
        ..step
    };
    assert!(evaluated.metrics().into_iter().map(without).eq(alone.metrics().into_iter().map(without)));
    // And in single steps, each resumed from the one before, it is evaluated and judged the same.
    let (stopped, _) = Run::in_single_steps(&config);
    evaluated.bits().assert_equal(&stopped.bits(), &[], "stopped after every step");
    assert_eq!(best(&evaluated.path()), best(&stopped.path()));
}

#[test]
fn the_best_checkpoint_stays_and_can_become_the_result() {
    let mut config = config();
    // Answers that training makes ever less likely.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("validation.json");
    let answer = "Zzyzx: quite (another) [alphabet] %& 0123456789 @#^~";
    let conversations = serde_json::json!([{"from": "human", "value": "What?"}, {"from": "gpt", "value": answer}]);
    fs::write(&file, serde_json::json!([{"id": "odd", "conversations": conversations}]).to_string()).unwrap();
    config.data.validation = Some(HeldOut::File(file));
    (config.lora.dropout, config.train.lr, config.train.warmup_ratio) = (0.0, 0.05, 0.0);
    config.train.steps = 4;
    config.train.save_every = 1;
    let last = Run::new(&config);
    let found = validations(&last.metrics());
    let lowest = found.iter().min_by(|a, b| a.1.loss_lm.total_cmp(&b.1.loss_lm)).unwrap();
    assert!((1..4).contains(&lowest.0), "the test wants a best state before the last: {found:?}");
    assert_eq!(best(&last.path()), (lowest.0, lowest.1.loss_lm));
    let mut record = f64::INFINITY;
    for (_, validation) in &found {
        assert_eq!(validation.best, validation.loss_lm < record);
        record = record.min(validation.loss_lm);
    }
    // The newest one and the best one.
    let kept = file_names(&last.path().join("checkpoints"));
    assert_eq!(kept, ["best.json".to_owned(), format!("step-{}", lowest.0), "step-4".to_owned()]);

    config.output.adapter = Kept::Best;
    let result = Run::new(&config);
    let checkpoint = result.path().join(format!("checkpoints/step-{}", lowest.0));
    for name in file_names(&result.adapter()) {
        let [of_result, of_last] = [result.adapter(), last.adapter()].map(|dir| fs::read(dir.join(&name)).unwrap());
        assert!(of_result == fs::read(checkpoint.join(&name)).unwrap(), "{name}");
        assert_eq!(of_result == of_last, name == "adapter_config.json", "{name}");
    }
}

#[test]
fn a_share_of_the_file_is_kept_from_training() {
    let mut config = config();
    config.data.validation = Some(HeldOut::Share(0.25));
    (config.train.epochs, config.train.steps) = (1, 0);
    let run = Run::new(&config);
    let metrics = run.metrics();
    // Six of eight samples in micro-batches of two and steps of two of them.
    assert_eq!(metrics.len(), 2);
    assert!(validations(&metrics).iter().all(|(_, validation)| validation.samples == 2));
}

fn best(run: &Path) -> (u64, f64) {
    let text = fs::read(run.join("checkpoints/best.json")).unwrap();
    let best: serde_json::Value = serde_json::from_slice(&text).unwrap();
    (best["step"].as_u64().unwrap(), best["loss_lm"].as_f64().unwrap())
}
