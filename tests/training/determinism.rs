//! The same run gives the same bits, whatever should not matter does not, and what should matter does.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::cases::{Case, f64s, micro_batches, open};
use crate::support::runs::{Run, file_names, new_device};
use crate::support::weights::{IN_MEMORY, OLDER_ADAPTER, ORIGINAL, copy_adapter, copy_model};
use crate::support::{Comparison, device, relative_distance};
use safetensors::tensor::TensorView;
use safetensors::{SafeTensors, serialize};
use sha2::{Digest, Sha256};
use viral_train::Config;
use viral_train::config::{Order, Remat};
use viral_train::data::{LrSchedule, buckets};
use viral_train::engine::Session;

/// Largest relative difference between two orders of summation after a few steps.
const ROUNDING: f64 = 1e-6;

/// How many steps, or whatever a variable says; `scripts/reliability` asks for hundreds.
fn count(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |text| text.parse().expect("a number"))
}

/// A case with other settings.
fn with(case: &str, change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Case::named(case).config();
    change(&mut config);
    config
}

///
#[test]
fn two_runs_give_the_same_bits() {
    for (case, order, dropout) in [("gqa", Order::Shuffled, 0.3), ("mha", Order::GroupByModalityLength, 0.05)] {
        let mut config = with(case, |config| {
            config.data.order = order;
            config.lora.dropout = dropout;
            config.train.steps = count("VIRAL_STEPS", 4);
        });
        let place = format!("{case}, {order:?}, dropout {dropout}");
        let first = Run::new(&config).bits();
        // As another process would train: nothing is left of the first run.
        first.assert_equal(&Run::on(new_device(&config), &config).bits(), &[], &place);

        config.train.seed += 1;
        let other = Run::new(&config).bits();
        assert!(first.metrics != other.metrics, "{place}: the seed makes no difference");
        assert!(first.adapter != other.adapter, "{place}: the seed makes no difference");
    }
}

/// What frozen networks made of a picture is the same whether it is computed or remembered.
#[test]
fn remembered_features_change_no_bit() {
    for name in ["gqa", "mha"] {
        let run = |megabytes| {
            let config = with(name, |config| {
                (config.data.order, config.train.feature_cache) = (Order::Shuffled, megabytes);
                config.train.steps = 8;
            });
            Run::new(&config).bits()
        };
        run(64).assert_equal(&run(0), &[], name);
    }
}

/// Nor is it another number if an earlier run computed it, of which files are left, some of them damaged.
#[test]
fn features_of_an_earlier_run_change_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("features");
    let run = |name: &str, root: Option<&Path>| {
        let config = with(name, |config| {
            config.train.feature_dir = root.map(Path::to_path_buf);
            config.train.steps = 4;
        });
        Run::new(&config).bits()
    };
    // The first run of each model finds the other's files and does not take them for its own.
    for name in ["gqa", "mha"] {
        let without = run(name, None);
        run(name, Some(&root)).assert_equal(&without, &[], name);
        run(name, Some(&root)).assert_equal(&without, &[], name);
    }
    let files: Vec<PathBuf> = files_below(&root);
    let families = file_names(&root);
    assert!(families.len() >= 2 && files.len() > families.len(), "{files:?}");

    for file in files.iter().step_by(2) {
        let mut bytes = fs::read(file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(file, bytes).unwrap();
    }
    run("gqa", Some(&root)).assert_equal(&run("gqa", None), &[], "damaged");

    // They are not written in vain: a run believes what is whole.
    for file in &files {
        let bytes = fs::read(file).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let zeros = |(name, view): (String, TensorView<'_>)| {
            (name, view.dtype(), view.shape().to_vec(), vec![0; view.data().len()])
        };
        let zeros: Vec<_> = tensors.tensors().into_iter().map(zeros).collect();
        let mut hash = Sha256::new();
        zeros.iter().for_each(|(.., bytes)| hash.update(bytes));
        let metadata = HashMap::from([("sha256".to_owned(), format!("{:x}", hash.finalize()))]);
        let views = zeros
            .iter()
            .map(|(name, dtype, shape, bytes)| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        fs::write(file, serialize(views, Some(metadata)).unwrap()).unwrap();
    }
    assert!(run("gqa", Some(&root)).metrics != run("gqa", None).metrics);
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for name in file_names(folder) {
        let path = folder.join(name);
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn dropout_differs_from_step_to_step() {
    // A step is a pass over the data, and nothing is learnt: all steps are the same but for dropout.
    let losses = |dropout| {
        let config = with("mha", |config| {
            config.lora.dropout = dropout;
            (config.train.batch, config.train.accumulation, config.train.steps) = (2, 3, 3);
            (config.train.lr, config.train.projector_lr) = (0.0, 0.0);
        });
        let losses: Vec<u64> = Run::new(&config).metrics().iter().map(|step| step.loss_lm.to_bits()).collect();
        BTreeSet::from_iter(losses).len()
    };
    assert_eq!(losses(0.0), 1);
    assert_eq!(losses(0.2), 3);
}

/// Masks and everything else come out the same when they are computed again. Kernels are cut differently, and a driver may
/// contract or reorder what one of them multiplies and adds; the software device has no such choice left to make.
#[test]
fn recomputation_changes_rounding_at_most() {
    let bound = if device().adapter().name.contains("llvmpipe") { 0.0 } else { ROUNDING };
    let run = |remat| {
        let config = with("gqa", |config| {
            config.train.remat = remat;
            config.lora.dropout = 0.1;
            config.train.steps = 3;
        });
        Run::new(&config)
    };
    let mut comparison = Comparison::default();
    let kept = run(Remat::None);
    let (kept_steps, kept_tensors) = (kept.metrics(), kept.tensors());
    for remat in [Remat::Block, Remat::Cheap] {
        let run = run(remat);
        for (found, expected) in run.metrics().iter().zip(&kept_steps) {
            let place = format!("{remat:?}: step {}", found.step);
            comparison.number("loss", &place, found.loss, expected.loss, bound);
            comparison.number("gradient norm", &place, found.grad_norm, expected.grad_norm, bound);
        }
        for (name, found) in run.tensors() {
            let error = relative_distance(&f64s(&found.values), &f64s(&kept_tensors[&name].values));
            comparison.note("final tensor", format!("{remat:?}: {name}"), error, bound);
        }
    }
    comparison.finish();
}

#[test]
fn the_form_of_the_weight_files_changes_no_bit() {
    for (name, label, renames, shards) in [
        ("gqa", "three files", &[][..], 3),
        ("gqa", "names in memory", IN_MEMORY, 1),
        ("mha", "one file", &[], 1),
        ("mha", "original names", ORIGINAL, 2),
    ] {
        let expected = with(name, |config| config.train.steps = 2);
        let folder = tempfile::tempdir().unwrap();
        let mut config = expected.clone();
        config.model.path = folder.path().join("llava");
        config.model.adapter = Some(folder.path().join("adapter"));
        copy_model(&expected.model.path, &config.model.path, renames, shards);
        let adapter_renames = if renames.is_empty() { &[][..] } else { OLDER_ADAPTER };
        copy_adapter(&expected.model.adapter.clone().unwrap(), &folder.path().join("adapter"), adapter_renames);
        let place = format!("{name}, {label}");
        // The adapter's configuration names the model's directory.
        Run::new(&config).bits().assert_equal(&Run::new(&expected).bits(), &["adapter_config.json"], &place);
    }
}

#[test]
fn nothing_is_allocated_after_the_first_step() {
    for name in ["gqa", "mha"] {
        let bundle = open(&with(name, |config| config.data.order = Order::Shuffled));
        let plan = bundle.step_plan();
        let schedule = LrSchedule::new(bundle.config.train.schedule, plan.steps(), bundle.config.train.warmup_ratio);
        let buckets = buckets(&plan, bundle.dataset.shapes());
        // What other tests allocate meanwhile would be counted too.
        let device = new_device(&bundle.config);
        let mut session = Session::new(&bundle, &device, &buckets).unwrap_or_else(|error| panic!("{error}"));
        let (mut seen, mut after_first) = (BTreeSet::new(), None);
        for micro_batch in micro_batches(&bundle) {
            session.micro_batch(&micro_batch).unwrap();
            session.last().unwrap();
            seen.insert(micro_batch.batch.bucket);
            if micro_batch.index + 1 == micro_batch.of {
                session.step(micro_batch.step, schedule.factor(micro_batch.step)).unwrap();
                let usage = session.device().memory();
                assert_eq!(*after_first.get_or_insert(usage), usage, "{name}: after step {}", micro_batch.step);
            }
        }
        assert!(seen == buckets && seen.len() > 1, "{name}: {seen:?}");
    }
}
