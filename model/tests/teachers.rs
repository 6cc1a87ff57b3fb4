//! Teachers by their configuration files: sizes of published models, and what is refused.

#[path = "../../tests/support/releases.rs"]
mod releases;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use releases::{DEPTH_ANYTHING, DINOV2, RADIO, RADIO_GIANT, Release, SAM};
use serde_json::json;
use viral_model::config::ConfigError;
use viral_model::graph::teachers::{self, Teacher};
use viral_model::weights::{Checkpoint, Inventory, TensorOut, TensorSpec, write_safetensors};

fn teacher(json: &str) -> Result<Arc<dyn Teacher>, ConfigError> {
    teachers::from_json(Path::new("config.json"), json.as_bytes())
}

/// Shapes of the required tensors by name.
fn tensors(teacher: &dyn Teacher) -> HashMap<String, Vec<usize>> {
    Inventory::teacher(teacher).required.into_iter().map(|spec| (spec.name, spec.shape)).collect()
}

/// The published ViT-B needs no key beyond its class.
#[test]
fn sam_as_published() {
    let sam = teacher(r#"{"model_type": "sam", "vision_config": {"model_type": "sam_vision_model"}}"#).unwrap();
    assert_eq!((sam.width(), sam.patch(), sam.own_grid(), sam.largest_grid()), (256, 16, 64, Some(64)));
    let tensors = tensors(&*sam);
    assert_eq!(tensors["pos_embed"], [1, 64, 64, 768]);
    assert_eq!(tensors["layers.0.attn.rel_pos_h"], [27, 64]);
    assert_eq!(tensors["layers.2.attn.rel_pos_w"], [127, 64]);
    assert_eq!(tensors["layers.11.attn.qkv.weight"], [2304, 768]);
    assert_eq!(tensors["neck.conv2.weight"], [256, 256, 3, 3]);
    assert_eq!(tensors.len(), 3 + 12 * 14 + 6);
    let elements: usize = tensors.values().map(|shape| shape.iter().product::<usize>()).sum();
    assert_eq!(elements, 89_670_912, "the size of SAM ViT-B's image encoder");
}

#[test]
fn radio_as_published() {
    let radio = teacher(
        r#"{"model_type": "radio", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
            "num_cls_tokens": 4, "num_registers": 4}"#,
    )
    .unwrap();
    assert_eq!((radio.width(), radio.patch(), radio.own_grid()), (768, 16, 128));
    let tensors = tensors(&*radio);
    assert_eq!(tensors["patch_generator.embedder.weight"], [768, 768]);
    assert_eq!(tensors["patch_generator.pos_embed"], [1, 16384, 768]);
    assert_eq!(tensors["patch_generator.cls_token.token"], [8, 768]);
    assert_eq!(tensors.len(), 2 + 3 + 12 * 12, "conditioner, front end, blocks; no final norm");
}

#[test]
fn towers_and_depth_anything_as_published() {
    let clip = r#"{"model_type": "clip", "text_config": {}, "vision_config": {"hidden_size": 1024, "num_hidden_layers": 24,
        "num_attention_heads": 16, "intermediate_size": 4096, "image_size": 336, "patch_size": 14}}"#;
    let clip = teacher(clip).unwrap();
    assert_eq!((clip.width(), clip.own_grid(), clip.largest_grid()), (1024, 24, None));
    let needed = tensors(&*clip);
    assert!(
        needed.contains_key("encoder.layers.22.mlp.fc2.bias") && !needed.contains_key("encoder.layers.23.mlp.fc2.bias")
    );
    let siglip =
        teacher(r#"{"model_type": "siglip", "vision_config": {"image_size": 384, "patch_size": 16}}"#).unwrap();
    assert_eq!((siglip.width(), siglip.own_grid()), (768, 24));
    assert!(tensors(&*siglip).contains_key("embeddings.patch_embedding.bias"));
    let depth = r#"{"model_type": "depth_anything", "backbone_config": {"model_type": "dinov2", "image_size": 518}}"#;
    let depth = teacher(depth).unwrap();
    assert_eq!((depth.width(), depth.own_grid()), (768, 37));
}

#[test]
fn refusals_name_key_and_value() {
    for (json, message) in [
        (r#"{"model_type": "resnet"}"#, r#"`model_type` = "resnet" is not supported"#),
        ("{}", "`model_type` is missing, expected one of dinov2"),
        (r#"{"model_type": "sam"}"#, "`vision_config` is missing"),
        (r#"{"model_type": "sam_vision_model", "global_attn_indexes": [12]}"#, "`global_attn_indexes` is [12]"),
        (r#"{"model_type": "sam_vision_model", "use_rel_pos": false}"#, "`use_rel_pos` = false is not supported"),
        (r#"{"model_type": "sam_vision_model", "mlp_ratio": 1e300}"#, "`mlp_ratio` is 1e+300"),
        (r#"{"model_type": "radio", "layerscale_value": 0.1}"#, "`layerscale_value` = 0.1 is not supported"),
        (r#"{"model_type": "radio", "num_registers": -1}"#, "`num_registers` is -1"),
        (r#"{"model_type": "radio", "patch_size": 15}"#, "is not a multiple of"),
        (r#"{"model_type": "depth_anything"}"#, "`backbone_config` is missing"),
        (r#"{"model_type": "clip_vision_model", "image_size": 8}"#, "`image_size` is smaller than `patch_size`"),
    ] {
        let error = teacher(json).map(|_| ()).expect_err(json).to_string();
        assert!(error.contains(message), "{error}");
    }
}

/// Releases without `config.json`: every published size is told by its tensors.
#[test]
fn releases_are_recognised_by_their_tensors() {
    let dinov2 = |width: usize, layers: usize, heads: usize, more: &str| {
        format!(
            r#"{{"model_type": "dinov2", "hidden_size": {width}, "num_hidden_layers": {layers},
                "num_attention_heads": {heads}, "image_size": 518, "patch_size": 14{more}}}"#
        )
    };
    let radio = |width: usize, layers: usize, heads: usize, more: &str| {
        format!(
            r#"{{"model_type": "radio", "hidden_size": {width}, "num_hidden_layers": {layers},
                "num_attention_heads": {heads}, "num_cls_tokens": 8, "num_registers": 0{more}}}"#
        )
    };
    let giant = r#", "patch_size": 14, "max_img_size": 1792, "use_swiglu_ffn": true, "layer_scale": true,
        "patch_bias": true, "model_norm": true"#;
    let sam = |width: usize, layers: usize, heads: usize, global: &str| {
        format!(
            r#"{{"model_type": "sam_vision_model", "hidden_size": {width}, "num_hidden_layers": {layers},
                "num_attention_heads": {heads}, "global_attn_indexes": {global}}}"#
        )
    };
    let depth = format!(r#"{{"model_type": "depth_anything", "backbone_config": {}}}"#, dinov2(768, 12, 12, ""));
    let registers =
        dinov2(1024, 24, 16, r#", "num_register_tokens": 4"#).replace("\"dinov2\"", "\"dinov2_with_registers\"");
    for (config, release) in [
        (dinov2(384, 12, 6, ""), DINOV2),
        (dinov2(1536, 40, 24, r#", "use_swiglu_ffn": true"#), DINOV2),
        (registers, DINOV2),
        (depth, DEPTH_ANYTHING),
        (sam(768, 12, 12, "[2, 5, 8, 11]"), SAM),
        (sam(1280, 32, 16, "[7, 15, 23, 31]"), SAM),
        (radio(768, 12, 12, ""), RADIO),
        (radio(1280, 32, 16, r#", "feature_normalizer": true"#), RADIO),
        (radio(1536, 40, 24, giant), RADIO_GIANT),
    ] {
        let expected = teacher(&config).unwrap();
        let dir = tempfile::tempdir().unwrap();
        write_release(&dir.path().join("release.safetensors"), &*expected, release);
        let found = teachers::open(dir.path()).unwrap();
        assert_eq!(format!("{found:?}"), format!("{expected:?}"));
        // The file alone will do, and so will a config.json that does not say what it is.
        fs::write(dir.path().join("config.json"), r#"{"architectures": ["Custom"]}"#).unwrap();
        for path in [dir.path().to_path_buf(), dir.path().join("release.safetensors")] {
            assert_eq!(format!("{:?}", teachers::open(&path).unwrap()), format!("{expected:?}"));
        }
        Checkpoint::open(dir.path(), found.names()).unwrap().check(&Inventory::teacher(&*found)).unwrap();
    }
}

#[test]
fn what_tensors_do_not_tell_is_asked_for() {
    let refused = |tensors: &[(&str, &[usize])]| {
        let dir = tempfile::tempdir().unwrap();
        let zeros: Vec<f32> = vec![0.0; 4096];
        let out = tensors.iter().map(|(name, shape)| TensorOut::f32(*name, *shape, &zeros[..shape.iter().product()]));
        write_safetensors(&dir.path().join("model.safetensors"), &out.collect::<Vec<_>>()).unwrap();
        teachers::open(dir.path()).map(|_| ()).unwrap_err().to_string()
    };
    let mut dinov2: Vec<(&str, &[usize])> = vec![
        ("cls_token", &[1, 1, 24]),
        ("pos_embed", &[1, 17, 24]),
        ("patch_embed.proj.weight", &[24, 3, 2, 2]),
        ("blocks.0.ls1.gamma", &[24]),
        ("blocks.0.mlp.fc1.weight", &[96, 24]),
    ];
    let error = refused(&dinov2);
    assert!(error.contains("384, 768, 1024, 1536, this one of 24") && error.contains("num_attention_heads"), "{error}");
    dinov2[1] = ("pos_embed", &[1, 16, 24]);
    assert!(refused(&dinov2).contains("the 15 rows of `embeddings.position_embeddings` are no square"));
    dinov2.remove(1);
    assert!(refused(&dinov2).contains("there is no `embeddings.position_embeddings`"));
    assert!(refused(&[("weight", &[3])]).contains("none of a teacher that is known"));
    let empty = tempfile::tempdir().unwrap();
    let error = teachers::open(empty.path()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains("model.safetensors"), "{error}");
}

/// Writes a file with the names and shapes of a release, with fused query, key and value. It has a hole in the place of all
/// elements, so that true sizes take no space.
fn write_release(file: &Path, teacher: &dyn Teacher, release: Release) {
    let mut tensors = BTreeMap::new();
    for TensorSpec { name, mut shape } in Inventory::teacher(teacher).required {
        let (name, third) = release.name(&name);
        shape[0] *= if third.is_some() { 3 } else { 1 };
        tensors.insert(name, shape);
    }
    let mut end = 0;
    let mut header = serde_json::Map::new();
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(name, json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut out = fs::File::create(file).unwrap();
    out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    out.write_all(header.as_bytes()).unwrap();
    out.set_len((8 + header.len() + end) as u64).unwrap();
}
