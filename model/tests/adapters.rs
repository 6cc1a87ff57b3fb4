//! Adapter directories against those that PEFT wrote, and every way in which one can be wrong.

use std::fs;
use std::path::{Path, PathBuf};

use viral_compiler::Graph;
use viral_compiler::ir::LeafKind;
use viral_compiler::types::DType;
use viral_model::adapter::{Adapter, AdapterError, LoraConfig};
use viral_model::config::LlavaConfig;
use viral_model::graph::projector::Alignment;
use viral_model::graph::{LinearMap, Trainable};
use viral_model::weights::{TensorFile, TensorOut, TensorSpec, write_safetensors};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn model(name: &str) -> LlavaConfig {
    LlavaConfig::from_dir(&fixture(name).join("llava")).unwrap()
}

/// Tensors of the alignment projectors for states of `width` numbers.
fn aligned(width: usize, hidden: usize, indices: &[Option<usize>]) -> Vec<TensorSpec> {
    let mut g = Graph::new();
    let states = g.input("states", DType::F32, &[1, width]);
    for &index in indices {
        Alignment { hidden, outputs: 32, index }.project(&mut g, Trainable::LORA, states);
    }
    let params = g.leaves().filter(|leaf| leaf.kind == LeafKind::Param);
    params.map(|leaf| TensorSpec::new(leaf.name, leaf.ty.shape.clone())).collect()
}

/// (adapter, model, tensors of alignment projectors) of every committed case.
fn cases() -> Vec<(&'static str, LlavaConfig, Vec<TensorSpec>)> {
    vec![
        ("gqa", model("gqa"), aligned(64, 40, &[None])),
        ("mha", model("mha"), aligned(32, 24, &[None])),
        ("multi", model("mha"), aligned(32, 16, &[Some(0), Some(1)])),
        ("lm_only", model("mha"), Vec::new()),
    ]
}

/// A copy of a committed adapter that may be spoilt.
fn copy(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name).join("adapter")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

/// Rewrites the keys of a safetensors file; an empty new key drops the tensor.
fn rekey(path: &Path, rename: impl Fn(&str) -> String) {
    let file = TensorFile::open(path).unwrap();
    let tensors: Vec<_> = file
        .names()
        .filter(|key| !rename(key).is_empty())
        .map(|key| (rename(key), file.get(key).unwrap().shape().to_vec(), file.get(key).unwrap().to_f32().unwrap()))
        .collect();
    let out: Vec<_> = tensors.iter().map(|(key, shape, x)| TensorOut::f32(key.as_str(), shape.clone(), x)).collect();
    write_safetensors(path, &out).unwrap();
}

fn set_config(dir: &Path, key: &str, value: serde_json::Value) {
    let path = dir.join("adapter_config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(&path, config.to_string()).unwrap();
}

fn message(result: Result<impl Sized, AdapterError>) -> String {
    result.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn adapters_are_read_and_written_byte_for_byte_as_peft_does() {
    for (name, model, alignment) in cases() {
        let source = fixture(name).join("adapter");
        let adapter = Adapter::read(&source, &model, &alignment).unwrap();
        let out = tempfile::tempdir().unwrap();
        adapter.write(&out.path().join("a/b")).unwrap();
        for entry in fs::read_dir(&source).unwrap() {
            let file = entry.unwrap().file_name();
            if file.to_str().unwrap().ends_with(".safetensors") {
                let written = fs::read(out.path().join("a/b").join(&file)).unwrap();
                assert!(written == fs::read(source.join(&file)).unwrap(), "{name}/{}", file.display());
            }
        }
        assert_eq!(Adapter::read(&out.path().join("a/b"), &model, &alignment).unwrap(), adapter);
    }
}

#[test]
fn configuration_is_what_peft_wrote() {
    let lora = |name| LoraConfig::from_dir(&fixture(name).join("adapter"), &model("mha").text).unwrap();
    let gqa = LoraConfig::from_dir(&fixture("gqa/adapter"), &model("gqa").text).unwrap();
    assert_eq!((gqa.rank, gqa.alpha, gqa.dropout), (4, 8.0, 0.0));
    assert_eq!(gqa.targets, LinearMap::ALL);
    assert_eq!(gqa.base_model.as_deref(), Some("llava"));
    assert_eq!(lora("mha").targets, [LinearMap::Q, LinearMap::V, LinearMap::O, LinearMap::Up, LinearMap::Down]);
    assert_eq!(lora("multi").targets, [LinearMap::Q, LinearMap::V]);
    assert_eq!(lora("lm_only").targets, [LinearMap::K, LinearMap::Gate]);
}

#[test]
fn every_key_dialect_is_read() {
    let (_, model, alignment) = cases().remove(0);
    let reference = Adapter::read(&fixture("gqa/adapter"), &model, &alignment).unwrap();
    type Rename = fn(&str) -> String;
    let dialects: [(&str, Rename); 4] = [
        ("adapter_model", |key| key.replace("model.language_model.layers", "language_model.model.layers")),
        ("adapter_model", |key| key.replace("model.model.language_model.layers", "model.model.layers")),
        ("mm_projector", |key| format!("model.{key}")),
        ("mm_projector", |key| {
            key.replace("multi_modal_projector.linear_1", "model.mm_projector.0")
                .replace("multi_modal_projector.linear_2", "base_model.model.model.mm_projector.2")
        }),
    ];
    for (file, rename) in dialects {
        let dir = copy("gqa");
        rekey(&dir.path().join(format!("{file}.safetensors")), rename);
        assert_eq!(Adapter::read(dir.path(), &model, &alignment).unwrap(), reference);
    }
}

#[test]
fn every_form_of_target_modules_is_read() {
    let text = model("gqa").text;
    let parse = |targets: &str, excluded: &str| {
        let json = format!(r#"{{"r": 2, "target_modules": {targets}, "exclude_modules": {excluded}}}"#);
        LoraConfig::from_json(Path::new("adapter_config.json"), json.as_bytes(), &text).map(|lora| lora.targets)
    };
    let (q, o) = (LinearMap::Q, LinearMap::O);
    for (targets, excluded, expected) in [
        (r#""all-linear""#, "null", &LinearMap::ALL[..]),
        (r#""all-linear""#, r#"["q_proj", "mlp.up_proj", "down_proj", "v_proj", "k_proj", "gate_proj"]"#, &[o]),
        (r#"["o_proj", "q_proj", "fc1"]"#, "null", &[q, o]),
        (r#"["self_attn.q_proj"]"#, "[]", &[q]),
        (r#"["q_proj"]"#, r#"".*vision_tower.*""#, &[q]),
        (r#"".*language_model.*\\.(q|o)_proj""#, "null", &[q, o]),
        (r#""model\\.layers\\.\\d+\\.self_attn\\.q_proj""#, "null", &[q]),
        (r#""^(?!.*vision).*q_proj$""#, "null", &[q]),
    ] {
        assert_eq!(parse(targets, excluded).unwrap(), expected, "{targets} {excluded}");
    }
    for (targets, expected) in [
        (r#"["fc1", "proj"]"#, "is not supported; supported: linear layers of the language model: q_proj"),
        ("[]", "is not supported"),
        ("null", "`target_modules` is null, expected names"),
        ("[3]", "`target_modules` is [3], expected names"),
        (r#""(""#, "expected a valid pattern"),
        (r#"["layers.1.self_attn.q_proj"]"#, "`target_modules` selects q_proj in 1 of 3 layers"),
        (r#""(.*)*(.*)*(?=x)(.*)*y""#, "expected a pattern of bounded effort"),
    ] {
        let text = parse(targets, "null").unwrap_err().to_string();
        assert!(text.contains(expected), "`{text}` lacks `{expected}`");
    }
}

#[test]
fn variants_are_refused_by_name() {
    let text = model("gqa").text;
    for (key, value) in [
        ("peft_type", r#""LOHA""#),
        ("bias", r#""all""#),
        ("use_dora", "true"),
        ("use_rslora", "true"),
        ("lora_bias", "true"),
        ("rank_pattern", r#"{"q_proj": 3}"#),
        ("alpha_pattern", r#"{"q_proj": 3}"#),
        ("layers_to_transform", "[1]"),
        ("modules_to_save", r#"["lm_head"]"#),
        ("fan_in_fan_out", "true"),
        ("init_lora_weights", r#""pissa""#),
        ("trainable_token_indices", "[3]"),
    ] {
        let json = format!(r#"{{"target_modules": ["q_proj"], "{key}": {value}}}"#);
        let error = LoraConfig::from_json(Path::new("adapter_config.json"), json.as_bytes(), &text).unwrap_err();
        let expected = format!("`{key}` = {} is not supported", value.replace(": ", ":"));
        assert!(error.to_string().contains(&expected), "`{error}` lacks `{expected}`");
    }
    for (key, value) in [("r", "0"), ("lora_dropout", "1.0"), ("lora_alpha", r#""8""#)] {
        let json = format!(r#"{{"target_modules": ["q_proj"], "{key}": {value}}}"#);
        let error = LoraConfig::from_json(Path::new("adapter_config.json"), json.as_bytes(), &text).unwrap_err();
        assert!(error.to_string().contains(&format!("`{key}` is {value}, expected")), "{error}");
    }
}

#[test]
fn a_key_too_many_or_too_few_is_an_error_that_names_it() {
    let (_, model, alignment) = cases().remove(0);
    let read = |dir: &tempfile::TempDir| message(Adapter::read(dir.path(), &model, &alignment));
    let lora = "adapter_model.safetensors";

    let dir = copy("gqa");
    rekey(&dir.path().join(lora), |key| key.replace("layers.2.mlp.up_proj.lora_A", "layers.9.mlp.up_proj.lora_A"));
    let text = read(&dir);
    assert!(text.contains("missing:\n    model.language_model.layers.2.mlp.up_proj.lora_A.weight"), "{text}");
    assert!(text.contains("left over:\n    model.language_model.layers.9.mlp.up_proj.lora_A.weight"), "{text}");

    let dir = copy("gqa");
    rekey(
        &dir.path().join(lora),
        |key| if key.contains("layers.0.mlp.up_proj.lora_B") { String::new() } else { key.into() },
    );
    assert!(read(&dir).contains("1 tensor missing:\n    model.language_model.layers.0.mlp.up_proj.lora_B.weight"));

    let dir = copy("gqa");
    rekey(&dir.path().join(lora), |key| {
        key.replace("model.language_model.layers.0.mlp.gate_proj", "model.vision_tower.x")
    });
    let text = read(&dir);
    assert!(
        text.contains("model.vision_tower.x.lora_A.weight") && text.contains("language model's linear layers only"),
        "{text}"
    );

    let dir = copy("gqa");
    set_config(dir.path(), "r", 5.into());
    assert!(read(&dir).contains("expected shape [5, 64], found [4, 64]"));

    let dir = copy("gqa");
    set_config(dir.path(), "target_modules", serde_json::json!(["q_proj"]));
    assert!(read(&dir).contains("36 tensors left over"));

    let dir = copy("gqa");
    rekey(&dir.path().join("mm_projector.safetensors"), |key| key.replace("linear_2.bias", "linear_3.bias"));
    assert!(read(&dir).contains("model.multi_modal_projector.linear_3.bias"));

    let dir = copy("gqa");
    rekey(&dir.path().join("alignment_projector.safetensors"), |key| key.replace("projector.4", "projector.6"));
    let text = read(&dir);
    assert!(text.contains("alignment_projector.projector.6.bias") && text.contains("vra.projector_dim"), "{text}");

    // A run without alignment has no place for an alignment projector.
    let text = message(Adapter::read(&fixture("gqa/adapter"), &model, &[]));
    assert!(text.contains("6 tensors left over:\n    alignment_projector.projector.0.bias"), "{text}");

    let dir = copy("gqa");
    rekey(&dir.path().join("mm_projector.safetensors"), |key| {
        key.replace("multi_modal_projector.linear_2.bias", "model.mm_projector.0.bias")
    });
    assert!(read(&dir).contains("model.multi_modal_projector.linear_1.bias is stored twice"));
}

#[test]
fn parts_may_be_absent_as_a_whole() {
    let (_, model, alignment) = cases().remove(0);
    let dir = copy("gqa");
    fs::remove_file(dir.path().join("alignment_projector.safetensors")).unwrap();
    let adapter = Adapter::read(dir.path(), &model, &alignment).unwrap();
    assert!(!adapter.parameters.keys().any(|name| name.starts_with("alignment_projector.")));
    fs::remove_file(dir.path().join("adapter_model.safetensors")).unwrap();
    assert!(message(Adapter::read(dir.path(), &model, &alignment)).contains("cannot open"));
    fs::write(dir.path().join("adapter_model.bin"), b"x").unwrap();
    assert!(message(Adapter::read(dir.path(), &model, &alignment)).contains("adapter_model.bin is truncated"));
    fs::remove_file(dir.path().join("adapter_model.bin")).unwrap();
    fs::remove_file(dir.path().join("adapter_config.json")).unwrap();
    let adapter = Adapter::read(dir.path(), &model, &alignment).unwrap();
    assert_eq!((adapter.lora, adapter.parameters.len()), (None, 4));
    fs::remove_file(dir.path().join("mm_projector.safetensors")).unwrap();
    assert!(message(Adapter::read(dir.path(), &model, &alignment)).contains("is not an adapter directory"));
}

#[test]
fn damaged_files_are_reported() {
    let (_, model, alignment) = cases().remove(0);
    let dir = copy("gqa");
    let path = dir.path().join("adapter_model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    let text = message(Adapter::read(dir.path(), &model, &alignment));
    assert!(text.contains("adapter_model.safetensors is truncated: tensor base_model.model."), "{text}");
    fs::write(&path, bytes).unwrap();
    fs::write(dir.path().join("adapter_config.json"), "{").unwrap();
    assert!(
        message(Adapter::read(dir.path(), &model, &alignment)).contains("adapter_config.json is not a JSON object")
    );
}

#[test]
fn only_whole_adapters_are_written() {
    let (_, model, alignment) = cases().remove(0);
    let whole = Adapter::read(&fixture("gqa/adapter"), &model, &alignment).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut spoilt = whole.clone();
    spoilt.lora = None;
    assert!(message(spoilt.write(dir.path())).contains("the LoRA configuration is missing"));
    spoilt = whole.clone();
    spoilt.parameters.retain(|name, _| !name.contains("lora"));
    assert!(message(spoilt.write(dir.path())).contains("there are no LoRA tensors"));
    spoilt = whole.clone();
    let any = spoilt.parameters.pop_first().unwrap().1;
    spoilt.parameters.insert("lm_head.weight".into(), any);
    assert!(message(spoilt.write(dir.path())).contains("cannot write lm_head.weight"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
