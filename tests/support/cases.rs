//! The reference's cases, as `tests/reference/README.md` describes their folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;
use viral_model::adapter::Parameter;
use viral_model::weights::TensorFile;
use viral_train::Config;
use viral_train::config::Overrides;
use viral_train::data::{Loader, MicroBatch};
use viral_train::engine::Bundle;

/// A case folder.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    /// `expected.json`.
    pub(crate) expected: Json,
}

impl Case {
    /// Every folder under `tests/fixtures` that has expectations, in alphabetical order.
    pub(crate) fn all() -> Vec<Self> {
        let entries = fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path());
        let mut dirs: Vec<PathBuf> = entries.filter(|dir| dir.join("expected.json").is_file()).collect();
        dirs.sort();
        assert!(!dirs.is_empty());
        dirs.into_iter().map(Self::open).collect()
    }

    /// The case of this name.
    pub(crate) fn named(name: &str) -> Self {
        Self::open(fixtures().join(name))
    }

    fn open(dir: PathBuf) -> Self {
        let name = dir.file_name().unwrap().to_str().unwrap().to_owned();
        let expected = serde_json::from_slice(&fs::read(dir.join("expected.json")).unwrap()).unwrap();
        Self { name, dir, expected }
    }

    /// The case's configuration, as the command line reads it.
    pub(crate) fn config(&self) -> Config {
        let file = self.dir.join("config.toml");
        Config::load(&file, &Overrides::default()).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// The case's inputs, opened.
    pub(crate) fn bundle(&self) -> Bundle {
        open(&self.config())
    }

    /// `expected.safetensors`, which only some cases have.
    pub(crate) fn tensors(&self) -> Option<BTreeMap<String, Parameter>> {
        let file = self.dir.join("expected.safetensors");
        file.exists().then(|| read_tensors(&file))
    }

    /// An object of names and numbers in `expected.json`.
    pub(crate) fn numbers(&self, key: &str) -> BTreeMap<String, f64> {
        let object = self.expected[key].as_object().unwrap();
        object.iter().map(|(name, number)| (name.clone(), number.as_f64().unwrap())).collect()
    }
}

/// As the comparisons of `support` take numbers.
pub(crate) fn f64s(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// What a configuration names, opened.
pub(crate) fn open(config: &Config) -> Bundle {
    Bundle::open(config).unwrap_or_else(|error| panic!("{error}"))
}

/// The micro-batches of a run, as its loop sees them.
pub(crate) fn micro_batches(bundle: &Bundle) -> impl Iterator<Item = MicroBatch> + use<> {
    let (dataset, prepare) = (bundle.dataset.clone(), bundle.prepare.clone());
    let loader = Loader::start(dataset, prepare, bundle.geometry, Arc::new(bundle.step_plan()), 0, 1).unwrap();
    loader.map(|micro_batch| micro_batch.unwrap_or_else(|error| panic!("{error}")))
}

/// Every tensor of a safetensors file.
pub(crate) fn read_tensors(file: &Path) -> BTreeMap<String, Parameter> {
    let tensors = TensorFile::open(file).unwrap_or_else(|error| panic!("{error}"));
    let read = |name: &str| {
        let view = tensors.get(name).unwrap();
        (name.to_owned(), Parameter { shape: view.shape().to_vec(), values: view.to_f32().unwrap() })
    };
    tensors.names().map(read).collect()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}
