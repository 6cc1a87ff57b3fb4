//! The reference's combinations of language models, encoders and teachers, as `tests/reference/combinations.py` makes them:
//! configurations from a file, weights out of the tensors' names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use viral_compiler::ir::LeafKind;
use viral_model::adapter::{Adapter, LoraConfig, Parameter};
use viral_model::config::LlavaConfig;
use viral_model::graph::teachers::{self, Teacher};
use viral_model::graph::{LinearMap, adapter_key};
use viral_model::weights::{Inventory, TensorOut, write_safetensors};
use viral_train::Config;
use viral_train::config::Overrides;
use viral_train::engine::Inspection;

use super::cases::{Case, micro_batches, open};
use super::counter::content;

/// A case's expectations and its folder, which lives as long as the value.
pub(crate) struct Combination {
    pub(crate) name: String,
    /// The case in `cases.json`.
    pub(crate) expected: Json,
    folder: TempDir,
}

impl Combination {
    /// Every combination, its models and its starting adapter written.
    pub(crate) fn all() -> Vec<Self> {
        Self::in_file("cases.json")
    }

    /// Every case of a file.
    pub(crate) fn in_file(file: &str) -> Vec<Self> {
        let cases = read(file);
        let cases = cases.as_object().unwrap().iter();
        cases.map(|(name, expected)| Self::write(name, expected)).collect()
    }

    /// The case's configuration.
    pub(crate) fn config(&self) -> Config {
        let file = self.folder.path().join("config.toml");
        Config::load(&file, &Overrides::default()).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    fn write(name: &str, expected: &Json) -> Self {
        let combination =
            Self { name: name.to_owned(), expected: expected.clone(), folder: tempfile::tempdir().unwrap() };
        let (dir, base) = (combination.folder.path(), Case::named("gqa").dir);
        let part = |key: &str| expected[key].as_str().unwrap();
        write_llava(&dir.join("llava"), part("text"), part("encoder"), &base.join("llava"));
        write_teacher(&dir.join("teacher"), part("teacher"));
        let data = format!("[data]\ntrain = {:?}\nimages = {:?}\n", base.join("train.json"), base.join("images"));
        let given = "[data]\ntrain = \"train.json\"\nimages = \"images\"\n";
        let config = part("config").replace(given, &data);
        assert!(config.contains(&data));
        fs::write(dir.join("config.toml"), config).unwrap();
        combination.write_adapter();
        combination
    }

    /// The trained tensors are those of a run that starts without an adapter.
    fn write_adapter(&self) {
        let mut config = self.config();
        let dir = config.model.adapter.take().unwrap();
        let bundle = open(&config);
        let micro_batch = micro_batches(&bundle).next().unwrap();
        let graph = Inspection::new(&bundle, &micro_batch).unwrap().graph;
        let params = graph.leaves().filter(|leaf| leaf.kind == LeafKind::Param);
        let parameter = |name: &str, shape: &[usize]| Parameter {
            shape: shape.to_vec(),
            values: content(&adapter_key(name), shape),
        };
        let parameters: BTreeMap<String, Parameter> =
            params.map(|leaf| (leaf.name.to_owned(), parameter(leaf.name, &leaf.ty.shape))).collect();
        let lora = LoraConfig {
            rank: config.lora.r,
            alpha: config.lora.alpha,
            dropout: config.lora.dropout,
            targets: LinearMap::ALL.to_vec(),
            base_model: None,
        };
        Adapter { lora: Some(lora), residual: None, parameters }.write(&dir).unwrap();
    }
}

/// The configurations of all parts of one kind: `text`, `encoder` or `teacher`.
pub(crate) fn parts(kind: &str) -> BTreeMap<String, Json> {
    read("parts.json")[kind].as_object().unwrap().clone().into_iter().collect()
}

/// The configuration file of a model of two parts.
pub(crate) fn llava_config(text: &str, encoder: &str) -> Json {
    let text = &parts("text")[text];
    let mut config = json!({
        "model_type": "llava",
        "text_config": text,
        "image_token_index": 503,
        "pad_token_id": 504,
    });
    // The encoder's part may name another class of models.
    config.as_object_mut().unwrap().extend(parts("encoder")[encoder].as_object().unwrap().clone());
    config
}

/// The teacher of this name.
pub(crate) fn teacher(name: &str) -> Arc<dyn Teacher> {
    let config = parts("teacher")[name].to_string();
    teachers::from_json(Path::new(name), config.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

fn write_llava(dir: &Path, text: &str, encoder: &str, base: &Path) {
    fs::create_dir_all(dir).unwrap();
    let config = llava_config(text, encoder);
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut processor: Json =
        serde_json::from_slice(&fs::read(base.join("preprocessor_config.json")).unwrap()).unwrap();
    let side = &config["vision_config"]["image_size"];
    processor["size"] = json!({"shortest_edge": side});
    processor["crop_size"] = json!({"height": side, "width": side});
    if let Some(pinpoints) = config.get("image_grid_pinpoints") {
        processor["image_processor_type"] = json!("LlavaNextImageProcessor");
        processor["image_grid_pinpoints"] = pinpoints.clone();
    }
    fs::write(dir.join("preprocessor_config.json"), processor.to_string()).unwrap();
    fs::copy(base.join("tokenizer.json"), dir.join("tokenizer.json")).unwrap();
    write_weights(dir, &Inventory::llava(&LlavaConfig::from_dir(dir).unwrap()));
}

/// Writes a teacher's directory as the library has it, contents out of the tensors' names.
pub(crate) fn write_teacher(dir: &Path, name: &str) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("config.json"), parts("teacher")[name].to_string()).unwrap();
    write_weights(dir, &Inventory::teacher(&*teacher(name)));
}

fn write_weights(dir: &Path, inventory: &Inventory) {
    let tensors: Vec<_> = inventory.required.iter().map(|spec| (spec, content(&spec.name, &spec.shape))).collect();
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(spec, values)| TensorOut::f32(spec.name.as_str(), spec.shape.as_slice(), values))
        .collect();
    write_safetensors(&dir.join("model.safetensors"), &tensors).unwrap();
}

fn read(file: &str) -> Json {
    serde_json::from_slice(&fs::read(folder().join(file)).unwrap()).unwrap()
}

/// Where the reference's files are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/networks")
}
