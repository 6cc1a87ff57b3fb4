//! The same model in every layout that people hold it in trains to the same bits.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::cases::Case;
use crate::support::combinations::write_teacher;
use crate::support::releases::{DEPTH_ANYTHING, RADIO_GIANT, SAM};
use crate::support::runs::Run;
use crate::support::torch::{Stored, save};
use crate::support::weights::{ORIGINAL, Renames};
use safetensors::SafeTensors;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use viral_train::Config;

/// The model and adapter of a case, to be laid out in other ways.
struct Model {
    folder: TempDir,
    config: Config,
    tensors: BTreeMap<String, Stored>,
    settings: Json,
}

impl Model {
    fn new() -> Self {
        let mut config = Case::named("gqa").config();
        config.train.steps = 2;
        let settings = serde_json::from_slice(&fs::read(config.model.path.join("config.json")).unwrap()).unwrap();
        let tensors = read(&config.model.path.join("model.safetensors"));
        Self { folder: tempfile::tempdir().unwrap(), config, tensors, settings }
    }

    fn dir(&self, name: &str) -> PathBuf {
        let dir = self.folder.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Copies a file of the model as it is.
    fn copy(&self, file: &str, to: &Path) {
        fs::copy(self.config.model.path.join(file), to.join(file)).unwrap();
    }

    /// The tensors of these prefixes under other names.
    fn renamed(&self, renames: Renames<'_>) -> BTreeMap<String, Stored> {
        let rename = |(name, stored): (&String, &Stored)| {
            let name = renames.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)))?;
            Some((name, stored.clone()))
        };
        self.tensors.iter().filter_map(rename).collect()
    }

    /// The configuration of the language model at the root, as the original code has it, and what it adds.
    fn flat_settings(&self, model_type: &str, more: Json) -> String {
        let mut settings = self.settings["text_config"].as_object().unwrap().clone();
        settings.insert("model_type".into(), model_type.into());
        let rope = settings.remove("rope_parameters").unwrap();
        settings.insert("rope_theta".into(), rope["rope_theta"].clone());
        settings.extend(more.as_object().unwrap().clone());
        Json::Object(settings).to_string()
    }

    /// A whole CLIP model in a directory of its own, with a text tower beside the vision tower.
    fn clip(&self) -> PathBuf {
        let dir = self.dir("clip");
        let settings = json!({ "model_type": "clip", "vision_config": self.settings["vision_config"] });
        fs::write(dir.join("config.json"), settings.to_string()).unwrap();
        self.copy("preprocessor_config.json", &dir);
        let mut tensors = self.renamed(&[("vision_tower.", ""), ("model.vision_tower.", "vision_model.")]);
        let text = self.tensors.values().next().unwrap().clone();
        tensors.insert("text_model.final_layer_norm.weight".into(), text.clone());
        tensors.insert("logit_scale".into(), text);
        save(&dir.join("pytorch_model.bin"), &tensors, true);
        dir
    }

    #[track_caller]
    fn assert_same(&self, config: &Config, place: &str) {
        // The adapter's configuration names the model's directory.
        Run::new(config).bits().assert_equal(&Run::new(&self.config).bits(), &["adapter_config.json"], place);
    }
}

/// Teachers as research releases have them: one PyTorch file under other names, query, key and value in one, and without
/// config.json where the tensors say everything.
#[test]
fn releases_of_teachers() {
    let model = Model::new();
    // DINOv2 and the other RADIOs are these without a prefix, a gate and scales.
    for (name, release, has_config) in
        [("depth-anything", DEPTH_ANYTHING, true), ("sam", SAM, false), ("radio-giant", RADIO_GIANT, true)]
    {
        let mut config = model.config.clone();
        (config.model.adapter, config.vra.teacher) = (None, model.dir(&format!("{name}-library")));
        write_teacher(&config.vra.teacher, name);
        let mut parts: BTreeMap<String, BTreeMap<Option<usize>, Stored>> = BTreeMap::new();
        for (canonical, stored) in read(&config.vra.teacher.join("model.safetensors")) {
            let (name, third) = release.name(&canonical);
            parts.entry(name).or_default().insert(third, stored);
        }
        let joined = parts.into_iter().map(|(name, parts)| {
            let whole = parts.into_values().reduce(|mut whole, part| {
                whole.1[0] += part.1[0];
                whole.2.extend(part.2);
                whole
            });
            (name, whole.unwrap())
        });
        let library = config.clone();
        config.vra.teacher = model.dir(&format!("{name}-release"));
        save(&config.vra.teacher.join("release.pth"), &joined.collect(), false);
        if has_config {
            fs::copy(library.vra.teacher.join("config.json"), config.vra.teacher.join("config.json")).unwrap();
        }
        Run::new(&config).bits().assert_equal(&Run::new(&library).bits(), &[], name);
    }
}

/// From the names of the fixture, which are those of the library in memory or on the hub, to those of the original.
fn original_names(tensors: &BTreeMap<String, Stored>) -> Renames<'static> {
    const FROM_MEMORY: Renames<'static> = &[
        ("lm_head.", "lm_head."),
        ("model.language_model.", "model."),
        ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
        ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
        ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ];
    if tensors.contains_key("lm_head.weight") { FROM_MEMORY } else { ORIGINAL }
}

fn read(file: &Path) -> BTreeMap<String, Stored> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    tensors
        .into_iter()
        .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect()
}

#[test]
fn pytorch_files() {
    let model = Model::new();
    let dir = model.dir("llava");
    for file in ["config.json", "preprocessor_config.json", "tokenizer.json"] {
        model.copy(file, &dir);
    }
    let mut config = model.config.clone();
    config.model.path = dir.clone();
    save(&dir.join("pytorch_model.bin"), &model.tensors, false);
    model.assert_same(&config, "one .bin");

    fs::remove_file(dir.join("pytorch_model.bin")).unwrap();
    let mut index = BTreeMap::new();
    for shard in 0..2 {
        let file = format!("pytorch_model-{:05}-of-00002.bin", shard + 1);
        let dealt = model.tensors.clone().into_iter().skip(shard).step_by(2).collect::<BTreeMap<_, _>>();
        index.extend(dealt.keys().map(|name| (name.clone(), file.clone())));
        save(&dir.join(file), &dealt, true);
    }
    let index = json!({ "metadata": {}, "weight_map": index });
    fs::write(dir.join("pytorch_model.bin.index.json"), index.to_string()).unwrap();
    model.assert_same(&config, "two .bin shards, matrices transposed");
}

/// A run's output as the original code leaves it, on a base in its own layout.
#[test]
fn original_directories() {
    let model = Model::new();
    let names = original_names(&model.tensors);
    let keys = json!({
        "mm_vision_tower": "openai/clip-vit-tiny", "mm_hidden_size": 32, "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch", "mm_patch_merge_type": "flat",
        "image_aspect_ratio": "pad", "mm_use_im_start_end": false, "mm_use_im_patch_token": false,
        "tokenizer_model_max_length": 2048, "use_mm_proj": true, "vra_loss": true, "vra_target": "dinov2-vit-b",
    });
    let mut config = model.config.clone();
    (config.model.path, config.model.vision) = (model.dir("original"), Some(model.clip()));
    model.copy("tokenizer.json", &config.model.path);
    fs::write(config.model.path.join("config.json"), model.flat_settings("llava_llama", keys)).unwrap();
    let mut tensors = model.renamed(names);
    tensors.retain(|name, _| !name.starts_with("model.vision_tower."));
    save(&config.model.path.join("pytorch_model.bin"), &tensors, false);

    let (adapter, source) = (model.dir("adapter"), model.config.model.adapter.clone().unwrap());
    config.model.adapter = Some(adapter.clone());
    fs::copy(source.join("adapter_config.json"), adapter.join("adapter_config.json")).unwrap();
    let lora = read(&source.join("adapter_model.safetensors"));
    let older = |name: String| name.replace("model.language_model.layers", "model.layers");
    save(&adapter.join("adapter_model.bin"), &lora.into_iter().map(|(k, v)| (older(k), v)).collect(), true);
    let projector = read(&source.join("mm_projector.safetensors"));
    let projector: BTreeMap<String, Stored> = projector
        .into_iter()
        .map(|(name, stored)| {
            let name = name.replace("multi_modal_projector.linear_1", "mm_projector.0");
            (name.replace("multi_modal_projector.linear_2", "mm_projector.2"), stored)
        })
        .collect();
    let mut others: BTreeMap<String, Stored> = read(&source.join("alignment_projector.safetensors"));
    others.extend(projector.clone().into_iter().map(|(name, stored)| (format!("model.{name}"), stored)));
    let others = others.into_iter().map(|(name, stored)| (format!("base_model.model.{name}"), stored)).collect();
    save(&adapter.join("non_lora_trainables.bin"), &others, false);
    save(&adapter.join("mm_projector.bin"), &projector, false);
    model.assert_same(&config, "original layout");

    let mut changed = projector;
    changed.values_mut().next().unwrap().2[0] ^= 1;
    save(&adapter.join("mm_projector.bin"), &changed, false);
    let error = viral_train::engine::Bundle::open(&config).map(drop).unwrap_err();
    assert_eq!(error.kind.exit_code(), 4);
    assert!(error.to_string().contains("has other elements than in non_lora_trainables"), "{error}");
}

/// A language model, a vision model and a stage-1 projector that never met.
#[test]
fn separate_parts() {
    let model = Model::new();
    let names = original_names(&model.tensors);
    let mut config = model.config.clone();
    (config.model.path, config.model.vision) = (model.dir("vicuna"), Some(model.clip()));
    config.model.projector = Some(model.dir("stage1").join("mm_projector.bin"));
    model.copy("tokenizer.json", &config.model.path);
    fs::write(config.model.path.join("config.json"), model.flat_settings("llama", json!({}))).unwrap();
    let (projector, mut language): (BTreeMap<_, _>, BTreeMap<_, _>) =
        model.renamed(names).into_iter().partition(|(name, _)| name.contains("mm_projector"));
    language.retain(|name, _| !name.contains("vision_tower"));
    save(&config.model.path.join("pytorch_model.bin"), &language, false);
    save(config.model.projector.as_ref().unwrap(), &projector, false);
    model.assert_same(&config, "separate parts");

    config.model.projector = None;
    let error = viral_train::engine::Bundle::open(&config).map(drop).unwrap_err().to_string();
    assert!(error.contains("4 tensors missing:") && error.contains("model.multi_modal_projector.linear_1"), "{error}");
    config.model.vision = None;
    let error = viral_train::engine::Bundle::open(&config).map(drop).unwrap_err().to_string();
    assert!(error.contains("model.vision"), "{error}");
}
