//! The presets by name, and the configurations of published models.

use std::path::Path;

use serde_json::{Value, json};

use super::complete::Complete;
use super::scenes::SceneSet;
use super::weights::{TextShape, VisionShape};
use super::{clip_processor, write, write_json};
use crate::error::Result;

/// A folder that [`super::init`] can write.
#[derive(Debug)]
pub struct Preset {
    /// Name on the command line.
    pub name: &'static str,
    /// What the folder is for, in one line.
    pub help: &'static str,
    pub(super) content: Content,
}

/// What is in a preset's folder.
#[derive(Debug)]
pub(super) enum Content {
    /// Everything that a run needs.
    Complete(&'static Complete),
    /// Configurations only.
    Published(fn() -> Published),
}

/// What is demonstrated, and written where no preset is named.
pub static TINY: Preset = Preset {
    name: "tiny",
    help: "Tiny random model, teacher, tokenizer and pictures; trains in a minute",
    content: Content::Complete(&Complete {
        title: "A tiny model to try viral-wgpu with",
        text: TextShape { vocab: 512, hidden: 128, intermediate: 256, layers: 4, heads: 4, kv_heads: 2 },
        clip: VisionShape { hidden: 64, intermediate: 128, layers: 3, heads: 4, image: 84, patch: 14 },
        dinov2: VisionShape { hidden: 64, intermediate: 256, layers: 3, heads: 4, image: 84, patch: 14 },
        max_positions: 512,
        scenes: SceneSet { pictures: 320, texts: 80, rounds: 2, scale: 1 },
        whole_sentences: false,
        config: include_str!("tiny.toml"),
    }),
};

/// The case that speed is measured on: four samples of 256 visual and about 22 other tokens a step.
pub(super) static SMALL: Preset = Preset {
    name: "small",
    help: "Random model of 65 million parameters, teacher, tokenizer and pictures, to measure speed on",
    content: Content::Complete(&Complete {
        title: "A small model to measure viral-wgpu with",
        text: TextShape { vocab: 32_000, hidden: 512, intermediate: 1408, layers: 8, heads: 8, kv_heads: 8 },
        clip: VisionShape { hidden: 256, intermediate: 1024, layers: 6, heads: 4, image: 224, patch: 14 },
        dinov2: VisionShape { hidden: 256, intermediate: 1024, layers: 6, heads: 4, image: 224, patch: 14 },
        max_positions: 512,
        scenes: SceneSet { pictures: 48, texts: 0, rounds: 1, scale: 3 },
        whole_sentences: true,
        config: include_str!("small.toml"),
    }),
};

static LLAVA_7B: Preset = Preset {
    name: "llava-1.5-7b",
    help: "Configuration of LLaVA-1.5 7B without weights, to plan a run",
    content: Content::Published(|| vicuna("LLaVA-1.5 on Vicuna 7B", [4096, 11008, 32, 32], [16, 8])),
};

static LLAVA_13B: Preset = Preset {
    name: "llava-1.5-13b",
    help: "Configuration of LLaVA-1.5 13B without weights, to plan a run",
    content: Content::Published(|| vicuna("LLaVA-1.5 on Vicuna 13B", [5120, 13824, 40, 40], [8, 16])),
};

static QWEN_7B: Preset = Preset {
    name: "qwen2.5-7b",
    help: "Configuration of a LLaVA on Qwen2.5 7B without weights, to plan a run",
    content: Content::Published(qwen),
};

/// Every preset, in the order of the documentation.
pub static PRESETS: [&Preset; 5] = [&TINY, &SMALL, &LLAVA_7B, &LLAVA_13B, &QWEN_7B];

impl Preset {
    /// The preset of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        PRESETS.into_iter().find(|preset| preset.name == name)
    }
}

/// What a published LLaVA's files say.
pub(super) struct Published {
    title: &'static str,
    text: Value,
    image_token: u32,
    pad_token: u32,
    template: &'static str,
    batch: usize,
    accumulation: usize,
}

impl Published {
    /// Writes the configurations of the model, the teacher and the run.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        write_json(&dir.join("llava/config.json"), &self.llava())?;
        write_json(&dir.join("llava/preprocessor_config.json"), &clip_processor(336))?;
        write_json(&dir.join("dinov2/config.json"), &dinov2_base())?;
        let config = include_str!("published.toml")
            .replace("{title}", self.title)
            .replace("{template}", self.template)
            .replace("{batch}", &self.batch.to_string())
            .replace("{accumulation}", &self.accumulation.to_string());
        write(&dir.join("config.toml"), config)
    }

    fn llava(&self) -> Value {
        json!({
            "architectures": ["LlavaForConditionalGeneration"],
            "model_type": "llava",
            "ignore_index": -100,
            "image_seq_length": 576,
            "image_token_index": self.image_token,
            "pad_token_id": self.pad_token,
            "projector_hidden_act": "gelu",
            "multimodal_projector_bias": true,
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "tie_word_embeddings": false,
            "torch_dtype": "float16",
            "text_config": self.text,
            "vision_config": {
                "model_type": "clip_vision_model",
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "image_size": 336,
                "patch_size": 14,
                "projection_dim": 768,
                "hidden_act": "quick_gelu",
                "layer_norm_eps": 1e-5,
            },
        })
    }
}

/// A Vicuna 1.5 with the token ids of its Hugging Face conversion; 64 embedding rows are added for `<image>` and
/// `<pad>`. `[hidden, intermediate, layers, heads]` and `[batch, accumulation]`.
fn vicuna(
    title: &'static str,
    [hidden, intermediate, layers, heads]: [usize; 4],
    [batch, accumulation]: [usize; 2],
) -> Published {
    let text = json!({
        "model_type": "llama",
        "vocab_size": 32064,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": false,
    });
    Published { title, text, image_token: 32000, pad_token: 32001, template: "vicuna_v1", batch, accumulation }
}

/// Qwen2.5-7B-Instruct. Its embedding has room for `<image>` behind the tokenizer's own 151,665 tokens.
fn qwen() -> Published {
    let text = json!({
        "model_type": "qwen2",
        "vocab_size": 152_064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "hidden_act": "silu",
        "use_sliding_window": false,
        "tie_word_embeddings": false,
    });
    Published {
        title: "LLaVA on Qwen2.5 7B",
        text,
        image_token: 151_665,
        pad_token: 151_643,
        template: "qwen_2",
        batch: 8,
        accumulation: 16,
    }
}

/// DINOv2 ViT-B/14 without registers.
fn dinov2_base() -> Value {
    json!({
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "mlp_ratio": 4,
        "image_size": 518,
        "patch_size": 14,
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
        "qkv_bias": true,
        "use_swiglu_ffn": false,
        "torch_dtype": "float32",
    })
}
