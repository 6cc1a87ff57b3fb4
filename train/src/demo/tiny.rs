//! The `tiny` preset: a LLaVA, a teacher, a tokenizer, pictures and conversations, small and complete.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;

use image::ImageFormat;
use serde_json::{Value, json};
use tokenizers::Tokenizer;
use viral_model::weights::{TensorOut, write_safetensors};

use super::scenes::{self, Scenes};
use super::tokenizer::{self, IMAGE, PAD, SPECIALS};
use super::weights::{self, Tensor, TextShape, VisionShape};
use super::{clip_processor, write, write_json};
use crate::error::{Error, Kind, Result};

/// Longest sequence that the tiny model is made for.
const MAX_POSITIONS: usize = 512;
const PATCH: usize = 14;
const IMAGE_SIDE: usize = 84;

const TEXT: TextShape = TextShape { vocab: 512, hidden: 128, intermediate: 256, layers: 4, heads: 4, kv_heads: 2 };
const CLIP: VisionShape =
    VisionShape { hidden: 64, intermediate: 128, layers: 3, heads: 4, image: IMAGE_SIDE, patch: PATCH };
const DINOV2: VisionShape =
    VisionShape { hidden: 64, intermediate: 256, layers: 3, heads: 4, image: IMAGE_SIDE, patch: PATCH };

const CONFIG: &str = include_str!("tiny.toml");
const README: &str = include_str!("tiny.md");

/// What the template says around every conversation; the tokenizer learns from it as well.
const TEMPLATE: &str = "A chat between a curious user and an artificial intelligence assistant. The assistant gives \
    helpful, detailed, and polite answers to the user's questions. USER: ASSISTANT:";

pub(super) fn write_folder(dir: &Path, seed: u64) -> Result<()> {
    let scenes = scenes::generate(seed);
    write_data(dir, &scenes)?;
    let tokenizer = tokenizer::train(&format!("{TEMPLATE}\n{}", scenes.text()), TEXT.vocab)?;
    write_llava(&dir.join("llava"), &tokenizer, seed)?;
    write_dinov2(&dir.join("dinov2"), seed)?;
    write(&dir.join("README.md"), README)?;
    // Last, so that a folder with a configuration is complete.
    write(&dir.join("config.toml"), CONFIG)
}

fn write_data(dir: &Path, scenes: &Scenes) -> Result<()> {
    for (name, picture) in &scenes.pictures {
        let mut png = Cursor::new(Vec::new());
        picture
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|error| Error::internal("cannot encode a picture", error.to_string()))?;
        write(&dir.join("images").join(name), png.into_inner())?;
    }
    let records: Vec<String> = scenes.records.iter().map(|record| format!("  {record}")).collect();
    write(&dir.join("train.json"), format!("[\n{}\n]\n", records.join(",\n")))
}

fn write_llava(dir: &Path, tokenizer: &Tokenizer, seed: u64) -> Result<()> {
    let ids = tokenizer::special_ids(tokenizer);
    write_json(&dir.join("config.json"), &llava_config(&ids))?;
    let text = tokenizer
        .to_string(true)
        .map_err(|error| Error::internal("cannot encode the demo's tokenizer", error.to_string()))?;
    write(&dir.join("tokenizer.json"), text + "\n")?;
    write_json(&dir.join("tokenizer_config.json"), &tokenizer_config(&ids))?;
    write_json(
        &dir.join("special_tokens_map.json"),
        &json!({"bos_token": SPECIALS[1], "eos_token": SPECIALS[2], "pad_token": PAD, "unk_token": SPECIALS[0]}),
    )?;
    write_json(
        &dir.join("generation_config.json"),
        &json!({"bos_token_id": ids.get(SPECIALS[1]), "eos_token_id": ids.get(SPECIALS[2]), "pad_token_id": ids.get(PAD)}),
    )?;
    write_json(&dir.join("preprocessor_config.json"), &clip_processor(IMAGE_SIDE))?;
    write_json(
        &dir.join("processor_config.json"),
        &json!({
            "processor_class": "LlavaProcessor",
            "image_token": IMAGE,
            "num_additional_image_tokens": 1,
            "patch_size": PATCH,
            "vision_feature_select_strategy": "default",
        }),
    )?;
    write_weights(&dir.join("model.safetensors"), &weights::llava(&TEXT, &CLIP, seed))
}

fn write_dinov2(dir: &Path, seed: u64) -> Result<()> {
    write_json(
        &dir.join("config.json"),
        &json!({
            "architectures": ["Dinov2Model"],
            "model_type": "dinov2",
            "hidden_size": DINOV2.hidden,
            "num_hidden_layers": DINOV2.layers,
            "num_attention_heads": DINOV2.heads,
            "mlp_ratio": DINOV2.intermediate / DINOV2.hidden,
            "image_size": DINOV2.image,
            "patch_size": DINOV2.patch,
            "layer_norm_eps": 1e-6,
            "hidden_act": "gelu",
            "qkv_bias": true,
            "use_swiglu_ffn": false,
            "torch_dtype": "float32",
        }),
    )?;
    write_weights(&dir.join("model.safetensors"), &weights::dinov2(&DINOV2, seed))
}

fn llava_config(ids: &HashMap<&str, u32>) -> Value {
    json!({
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "ignore_index": -100,
        "image_seq_length": (IMAGE_SIDE / PATCH).pow(2),
        "image_token_index": ids.get(IMAGE),
        "pad_token_id": ids.get(PAD),
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": true,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": false,
        "torch_dtype": "float32",
        "text_config": {
            "model_type": "llama",
            "vocab_size": TEXT.vocab,
            "hidden_size": TEXT.hidden,
            "intermediate_size": TEXT.intermediate,
            "num_hidden_layers": TEXT.layers,
            "num_attention_heads": TEXT.heads,
            "num_key_value_heads": TEXT.kv_heads,
            "max_position_embeddings": MAX_POSITIONS,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "bos_token_id": ids.get(SPECIALS[1]),
            "eos_token_id": ids.get(SPECIALS[2]),
            "pad_token_id": ids.get(PAD),
            "tie_word_embeddings": false,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": CLIP.hidden,
            "intermediate_size": CLIP.intermediate,
            "num_hidden_layers": CLIP.layers,
            "num_attention_heads": CLIP.heads,
            "image_size": CLIP.image,
            "patch_size": CLIP.patch,
            "projection_dim": CLIP.hidden,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
        },
    })
}

fn tokenizer_config(ids: &HashMap<&str, u32>) -> Value {
    let added = |name: &str| json!({"content": name, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": true});
    let mut names: Vec<_> = ids.iter().collect();
    names.sort_by_key(|(_, id)| **id);
    let decoder: serde_json::Map<String, Value> =
        names.into_iter().map(|(name, id)| (id.to_string(), added(name))).collect();
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIALS[1],
        "eos_token": SPECIALS[2],
        "unk_token": SPECIALS[0],
        "pad_token": PAD,
        "image_token": IMAGE,
        "clean_up_tokenization_spaces": false,
        "model_max_length": MAX_POSITIONS,
        "padding_side": "right",
        "processor_class": "LlavaProcessor",
        "added_tokens_decoder": decoder,
    })
}

fn write_weights(path: &Path, tensors: &[Tensor]) -> Result<()> {
    let tensors: Vec<_> = tensors
        .iter()
        .map(|tensor| TensorOut::f32(tensor.name.as_str(), tensor.shape.as_slice(), &tensor.values))
        .collect();
    write_safetensors(path, &tensors).map_err(|error| Error {
        kind: Kind::Io,
        what: "cannot write the demo's weights".into(),
        place: path.display().to_string(),
        why: error.to_string(),
        hint: "check the disk and its free space".into(),
    })
}
