//! Teachers by their configuration files: sizes of published models, and what is refused.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use viral_model::config::ConfigError;
use viral_model::graph::teachers::{self, Teacher};
use viral_model::weights::Inventory;

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
        (r#"{"model_type": "radio", "use_swiglu_ffn": true}"#, "`use_swiglu_ffn` = true is not supported"),
        (r#"{"model_type": "radio", "num_registers": -1}"#, "`num_registers` is -1"),
        (r#"{"model_type": "radio", "patch_size": 15}"#, "is not a multiple of"),
        (r#"{"model_type": "depth_anything"}"#, "`backbone_config` is missing"),
        (r#"{"model_type": "clip_vision_model", "image_size": 8}"#, "`image_size` is smaller than `patch_size`"),
    ] {
        let error = teacher(json).map(|_| ()).expect_err(json).to_string();
        assert!(error.contains(message), "{error}");
    }
}
