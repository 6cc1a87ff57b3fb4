//! Runs that were stopped and go on.

use std::fs;

use crate::support;
use crate::support::cases::{Case, micro_batches, open};
use crate::support::runs::{Bits, Run, device_of, file_names};
use viral_compiler::Options;
use viral_compiler::tunables::{Question, merged, questions};
use viral_train::Config;
use viral_train::config::Order;
use viral_train::engine::{Inspection, Resume, Training};
use viral_train::run::Interrupt;
use viral_train::tuning::{Entry, FILE, TuningRecord};

/// Accumulation, pictures and text, several epochs, dropout: all that has a place to be remembered.
fn config() -> Config {
    let mut config = Case::named("gqa").config();
    config.data.order = Order::GroupByModalityLength;
    config.lora.dropout = 0.2;
    config.train.steps = 3;
    config.train.save_every = 1;
    config.train.keep_checkpoints = 2;
    config
}

#[test]
fn a_run_stopped_after_every_step_is_the_run_that_never_stopped() {
    let config = config();
    let whole = Run::new(&config);
    assert_eq!(file_names(&whole.path().join("checkpoints")), ["step-2", "step-3"]);
    let (stopped, stops) = Run::in_single_steps(&config);
    // A wish to stop is looked at after a step, so the last step ends the run instead.
    assert_eq!(stops, 2);
    whole.bits().assert_equal(&stopped.bits(), &[], "stopped after every step");
    assert_eq!(file_names(&stopped.path().join("checkpoints")), ["step-2", "step-3"]);

    // A checkpoint is an adapter directory too.
    let checkpoint = whole.path().join("checkpoints/step-3");
    let mut names = file_names(&whole.adapter());
    names.extend(["MANIFEST.json", "config.toml", "cursor.json", "optimizer.safetensors"].map(str::to_owned));
    names.sort();
    assert_eq!(file_names(&checkpoint), names);

    // An older checkpoint that is named gives the same end, and what is later is set aside.
    let mut again = config.clone();
    again.output.dir = whole.path();
    let bits = whole.bits();
    let from = |step: u64| Resume {
        checkpoint: Some(whole.path().join(format!("checkpoints/step-{step}"))),
        ..Resume::default()
    };
    Training::new(&again).on(device_of(&again)).resume(from(2)).run().unwrap_or_else(|error| panic!("{error}"));
    bits.assert_equal(&whole.bits(), &[], "from step 2");
    assert_eq!(file_names(&whole.path().join("checkpoints")), ["step-2", "step-3", "superseded-step-3.1"]);

    // A damaged checkpoint is refused where it was asked for.
    fs::write(checkpoint.join("optimizer.safetensors"), "gone").unwrap();
    let error = Training::new(&again).on(device_of(&again)).resume(from(3)).run().unwrap_err();
    assert_eq!(error.kind.exit_code(), 4, "{error}");
    assert!(error.to_string().contains("optimizer.safetensors"), "{error}");
}

///
#[test]
fn a_resumed_run_must_be_the_same_run() {
    let mut config = Case::named("lm_only").config();
    config.train.steps = 40;
    let folder = tempfile::tempdir().unwrap();
    config.output.dir = folder.path().join("run");
    let interrupt = Interrupt::default();
    interrupt.stop();
    let stopped = Training::new(&config).on(device_of(&config)).interruptible(interrupt.clone()).run().unwrap_err();
    assert_eq!(stopped.kind.exit_code(), 130, "{stopped}");

    // Where output goes, and how often, is nobody's business.
    config.train.save_every = 3;
    config.train.keep_checkpoints = 0;
    let again = |config: &Config, allow: &[&str]| {
        let resume = Resume { allow: allow.iter().map(|&key| key.to_owned()).collect(), ..Resume::default() };
        Training::new(config).on(device_of(config)).resume(resume).interruptible(interrupt.clone()).run().unwrap_err()
    };
    assert_eq!(again(&config, &[]).kind.exit_code(), 130);

    let mut other = config.clone();
    other.train.lr = 2e-3;
    other.vra.layers = vec![1];
    let refused = again(&other, &["vra.layers"]);
    assert_eq!(refused.kind.exit_code(), 2, "{refused}");
    assert!(refused.why.contains("train.lr  0.001") && !refused.why.contains("vra.layers"), "{refused}");
    let refused = again(&other, &[]);
    for part in ["key         checkpoint", "vra.layers  [16]", "[1]", "0.002", "--allow-change train.lr"] {
        assert!(refused.to_string().contains(part), "no {part} in {refused}");
    }
    assert_eq!(again(&other, &["vra.layers", "train.lr"]).kind.exit_code(), 130);

    // The same path with other records is another run, another path with the same records is not.
    let moved = folder.path().join("moved.json");
    fs::copy(&config.data.train, &moved).unwrap();
    other.data.train = moved.clone();
    assert_eq!(again(&other, &["vra.layers", "train.lr"]).kind.exit_code(), 130);
    fs::write(&moved, [fs::read(&moved).unwrap(), vec![b'\n']].concat()).unwrap();
    let refused = again(&other, &["vra.layers", "train.lr"]);
    assert!(refused.why.contains("data.train") && refused.why.contains("content "), "{refused}");
}

/// Other kernels add in another order: a run goes on with those that it began with, whatever the cache says by then.
#[test]
fn a_resumed_run_keeps_the_kernels_that_it_began_with() {
    let mut config = config();
    config.train.steps = 2;
    config.train.accumulation = 1;
    let cache = tempfile::tempdir().unwrap();
    let adapter = support::device().adapter();
    let file = TuningRecord::file(cache.path(), adapter);
    let asked = asked(&config);
    assert!(asked.len() > 5, "{asked:?}");
    let record = |choice: fn(&Question) -> &String| {
        let entry = |question: &Question| Entry {
            tunable: question.tunable.into(),
            class: question.class.clone(),
            choice: choice(question).clone(),
            rule: question.rule.clone(),
            choice_ms: 1.0,
            rule_ms: 2.0,
        };
        let new = TuningRecord::new(adapter, support::device().target(), "some time".into());
        TuningRecord { entries: asked.iter().map(entry).collect(), ..new }
    };
    let in_folder = |name: &str| {
        let mut config = config.clone();
        config.output.dir = cache.path().join(name);
        config
    };
    let run = |training: Training<'_>| training.tuning(Some(cache.path().to_owned())).run();

    let by_rule = in_folder("by rule");
    run(Training::new(&by_rule)).unwrap();
    assert!(!by_rule.output.dir.join(FILE).exists());
    record(|question| question.others.last().unwrap()).write(&file).unwrap();
    let whole = in_folder("whole");
    run(Training::new(&whole)).unwrap();
    let [by_rule, whole] = [by_rule, whole].map(|config| Bits::of(&config.output.dir));
    assert!(by_rule.metrics != whole.metrics, "the choices make no difference, so this test tests nothing");

    let stopped = in_folder("stopped");
    let interrupt = Interrupt::default();
    interrupt.stop();
    assert_eq!(run(Training::new(&stopped).interruptible(interrupt)).unwrap_err().kind.exit_code(), 130);
    record(|question| &question.rule).write(&file).unwrap();
    run(Training::new(&stopped).resume(Resume::default())).unwrap();
    Bits::of(&stopped.output.dir).assert_equal(&whole, &[], "resumed");

    // Without a record that can be read, nobody knows which bits the run would go on with.
    fs::write(stopped.output.dir.join(FILE), "format = 1\n").unwrap();
    let refused = run(Training::new(&stopped).resume(Resume::default())).unwrap_err();
    assert!(refused.place.ends_with(FILE) && refused.hint.contains("put back"), "{refused}");
}

/// What the micro-batches of a run ask.
fn asked(config: &Config) -> Vec<Question> {
    let bundle = open(config);
    let asked = micro_batches(&bundle).flat_map(|micro_batch| {
        let inspection = Inspection::new(&bundle, &micro_batch).unwrap();
        questions(&inspection.graph, &Options::new(support::device().target().clone())).unwrap()
    });
    merged(asked)
}
