//! Every naming dialect arrives at the same canonical name.

use viral_model::config::{Dinov2Config, LlavaConfig};
use viral_model::weights::{Inventory, NameMap};

use std::path::Path;

fn tiny_llava(extra: &str) -> LlavaConfig {
    let json = format!(
        r#"{{"model_type": "llava", {extra}
            "text_config": {{"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
                "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 20}},
            "vision_config": {{"hidden_size": 6, "intermediate_size": 10, "num_hidden_layers": 2,
                "num_attention_heads": 2, "image_size": 8, "patch_size": 4}}}}"#
    );
    LlavaConfig::from_json(Path::new("config.json"), json.as_bytes()).unwrap()
}

/// Rewrites a canonical LLaVA name into each dialect, newest first.
fn llava_dialects(name: &str) -> Vec<String> {
    let mut forms = vec![name.to_string(), format!("base_model.model.{name}")];
    if let Some(rest) = name.strip_prefix("model.vision_tower.") {
        forms.push(format!("model.vision_tower.vision_model.{rest}"));
        forms.push(format!("vision_tower.vision_model.{rest}"));
        forms.push(format!("model.vision_tower.vision_tower.vision_model.{rest}"));
    } else if let Some(rest) = name.strip_prefix("model.language_model.") {
        forms.push(format!("language_model.model.{rest}"));
        forms.push(format!("model.{rest}"));
        forms.push(format!("base_model.model.model.{rest}"));
        forms.push(format!("base_model.model.language_model.model.{rest}"));
    } else if let Some(rest) = name.strip_prefix("model.multi_modal_projector.") {
        forms.push(format!("multi_modal_projector.{rest}"));
        let original = rest.replace("linear_1", "0").replace("linear_2", "2");
        forms.push(format!("model.mm_projector.{original}"));
        forms.push(format!("mm_projector.{original}"));
    } else {
        forms.push(format!("language_model.{name}"));
    }
    forms
}

#[test]
fn llava_dialects_agree() {
    let inventory = Inventory::llava(&tiny_llava(""));
    assert_eq!(inventory.required.len(), 3 + 2 + 16 + 4 + 2 * 9 + 2 + 1);
    for spec in &inventory.required {
        for form in llava_dialects(&spec.name) {
            assert_eq!(NameMap::Llava.canonical(&form), [spec.name.as_str()], "{form}");
        }
    }
}

#[test]
fn derived_tables_are_ignored() {
    for name in ["model.layers.0.self_attn.rotary_emb.inv_freq", "vision_tower.vision_model.embeddings.position_ids"] {
        assert!(NameMap::Llava.canonical(name).is_empty());
    }
    assert_eq!(NameMap::Verbatim.canonical("a.position_ids"), ["a.position_ids"]);
}

#[test]
fn unknown_names_pass_unchanged() {
    for name in ["something.else", "model", "", "model.layersX.0", "lm_head"] {
        assert_eq!(NameMap::Llava.canonical(name), [name]);
    }
}

#[test]
fn blocks_behind_the_feature_layer_and_tied_heads_are_optional() {
    let names = |config: &LlavaConfig| {
        let required = Inventory::llava(config).required;
        required.into_iter().map(|spec| spec.name).collect::<Vec<_>>()
    };
    let usual = names(&tiny_llava(""));
    assert!(usual.iter().any(|name| name.starts_with("model.vision_tower.encoder.layers.0.")));
    assert!(!usual.iter().any(|name| name.starts_with("model.vision_tower.encoder.layers.1.")));
    assert!(!usual.iter().any(|name| name.contains("post_layernorm")));
    assert!(usual.contains(&"lm_head.weight".to_string()));
    let last = names(&tiny_llava(r#""vision_feature_layer": -1, "tie_word_embeddings": true,"#));
    assert!(last.iter().any(|name| name.starts_with("model.vision_tower.encoder.layers.1.")));
    assert!(!last.contains(&"lm_head.weight".to_string()));
}

/// (hub file, research release, newest library name).
#[test]
fn dinov2_dialects_agree() {
    let cases = [
        ("embeddings.cls_token", "cls_token", "embeddings.cls_token"),
        ("embeddings.mask_token", "mask_token", "embeddings.mask_token"),
        ("embeddings.register_tokens", "register_tokens", "embeddings.register_tokens"),
        ("embeddings.position_embeddings", "pos_embed", "embeddings.position_embeddings"),
        (
            "embeddings.patch_embeddings.projection.bias",
            "patch_embed.proj.bias",
            "embeddings.patch_embeddings.projection.bias",
        ),
        ("encoder.layer.11.norm1.weight", "blocks.11.norm1.weight", "encoder.layer.11.norm1.weight"),
        (
            "encoder.layer.3.attention.output.dense.bias",
            "blocks.3.attn.proj.bias",
            "encoder.layer.3.attention.o_proj.bias",
        ),
        ("encoder.layer.3.layer_scale1.lambda1", "blocks.3.ls1.gamma", "encoder.layer.3.layer_scale1.lambda1"),
        ("encoder.layer.3.layer_scale2.lambda1", "blocks.3.ls2.gamma", "encoder.layer.3.layer_scale2.lambda1"),
        ("encoder.layer.3.mlp.fc2.weight", "blocks.3.mlp.fc2.weight", "encoder.layer.3.mlp.fc2.weight"),
        ("encoder.layer.3.mlp.weights_in.weight", "blocks.3.mlp.w12.weight", "encoder.layer.3.mlp.weights_in.weight"),
        ("encoder.layer.3.mlp.weights_out.bias", "blocks.3.mlp.w3.bias", "encoder.layer.3.mlp.down_proj.bias"),
        ("layernorm.weight", "norm.weight", "layernorm.weight"),
    ];
    for (hub, release, newest) in cases {
        for form in [hub, release, newest, &format!("dinov2.{hub}")] {
            assert_eq!(NameMap::Dinov2.canonical(form), [hub], "{form}");
        }
    }
    for (part, newest) in [("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")] {
        let hub = format!("encoder.layer.0.attention.attention.{part}.weight");
        assert_eq!(NameMap::Dinov2.canonical(&format!("encoder.layer.0.attention.{newest}.weight")), [hub.as_str()]);
        assert_eq!(NameMap::Dinov2.canonical(&hub), [hub.as_str()]);
    }
    assert_eq!(
        NameMap::Dinov2.canonical("blocks.7.attn.qkv.bias"),
        ["query", "key", "value"].map(|part| format!("encoder.layer.7.attention.attention.{part}.bias"))
    );
}

#[test]
fn dinov2_inventory_counts() {
    let count = |json: &str| {
        let config = Dinov2Config::from_json(Path::new("config.json"), json.as_bytes()).unwrap();
        Inventory::teacher(&config).required.len()
    };
    assert_eq!(count(r#"{"model_type": "dinov2"}"#), 4 + 12 * 18 + 2);
    assert_eq!(
        count(r#"{"model_type": "dinov2_with_registers", "use_swiglu_ffn": true, "qkv_bias": false}"#),
        5 + 12 * 15 + 2
    );
}

/// (map, stored name, canonical name).
#[test]
fn other_vision_networks_dialects_agree() {
    use NameMap::{DepthAnything, Radio, Sam, Vae, VisionTower};
    let cases = [
        (DepthAnything, "pretrained.blocks.2.ls1.gamma", "encoder.layer.2.layer_scale1.lambda1"),
        (DepthAnything, "pretrained.pos_embed", "embeddings.position_embeddings"),
        (DepthAnything, "backbone.encoder.layer.2.layer_scale1.lambda1", "encoder.layer.2.layer_scale1.lambda1"),
        (DepthAnything, "backbone.layernorm.bias", "layernorm.bias"),
        (VisionTower, "vision_model.embeddings.class_embedding", "embeddings.class_embedding"),
        (VisionTower, "encoder.layers.3.mlp.fc1.bias", "encoder.layers.3.mlp.fc1.bias"),
        (Sam, "image_encoder.patch_embed.proj.weight", "patch_embed.projection.weight"),
        (Sam, "vision_encoder.patch_embed.projection.weight", "patch_embed.projection.weight"),
        (Sam, "image_encoder.pos_embed", "pos_embed"),
        (Sam, "image_encoder.blocks.11.norm2.bias", "layers.11.layer_norm2.bias"),
        (Sam, "vision_encoder.layers.11.layer_norm2.bias", "layers.11.layer_norm2.bias"),
        (Sam, "image_encoder.blocks.0.attn.rel_pos_h", "layers.0.attn.rel_pos_h"),
        (Sam, "image_encoder.blocks.0.attn.qkv.weight", "layers.0.attn.qkv.weight"),
        (Sam, "image_encoder.blocks.0.mlp.lin2.weight", "layers.0.mlp.lin2.weight"),
        (Sam, "image_encoder.neck.0.weight", "neck.conv1.weight"),
        (Sam, "image_encoder.neck.3.bias", "neck.layer_norm2.bias"),
        (Radio, "base_model.patch_generator.cls_token.token", "patch_generator.cls_token.token"),
        (Radio, "radio_model.model.patch_generator.cls_token.token", "patch_generator.cls_token.token"),
        (Radio, "radio_model.model.blocks.0.attn.qkv.bias", "blocks.0.attn.qkv.bias"),
        (Vae, "encoder.mid_block.attentions.0.to_out.0.bias", "encoder.mid_block.attentions.0.to_out.0.bias"),
        (Vae, "encoder.mid_block.attentions.0.query.weight", "encoder.mid_block.attentions.0.to_q.weight"),
        (Vae, "encoder.mid_block.attentions.0.proj_attn.bias", "encoder.mid_block.attentions.0.to_out.0.bias"),
        (Radio, "input_conditioner.norm_mean", "input_conditioner.norm_mean"),
        (Radio, "radio_model.input_conditioner.norm_std", "input_conditioner.norm_std"),
    ];
    for (map, stored, canonical) in cases {
        assert_eq!(map.canonical(stored), [canonical], "{map:?} {stored}");
    }
    let ignored = [
        (DepthAnything, "depth_head.scratch.output_conv1.weight"),
        (DepthAnything, "neck.convs.0.weight"),
        (DepthAnything, "head.conv1.bias"),
        (VisionTower, "text_model.embeddings.token_embedding.weight"),
        (VisionTower, "vision_model.embeddings.position_ids"),
        (VisionTower, "logit_scale"),
        (Sam, "mask_decoder.iou_token.weight"),
        (Sam, "shared_image_embedding.positional_embedding"),
        (Radio, "radio_model.summary_idxs"),
    ];
    for (map, stored) in ignored {
        assert!(map.canonical(stored).is_empty(), "{map:?} {stored}");
    }
    assert_eq!(NameMap::Llava.canonical("base_model.model.model.denoiser.ln_pre.weight"), ["denoiser.ln_pre.weight"]);
    assert_eq!(NameMap::Llava.canonical("model.mm_inv_projector.x"), ["denoiser.x"]);
}
