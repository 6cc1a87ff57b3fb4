//! The presets by name, and the configurations of published models.

use std::path::Path;

use serde_json::{Value, json};

use super::complete::Complete;
use super::parts::{Encoder, Parts, TEACHERS, flux_vae};
use super::scenes::SceneSet;
use super::vision_input::VisionInput;
use super::weights::{TextShape, VisionShape};
use super::{VAE, merged, with_ross, write, write_json};
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
    content: Content::Complete(&const { tiny("A tiny model to try viral-wgpu with", 84, VisionInput::Square) }),
};

static TINY_NEXT: Preset = Preset {
    name: "tiny-next",
    help: "The same as a LLaVA-NeXT, which sees pictures in tiles",
    content: Content::Complete(&const { tiny("A tiny LLaVA-NeXT to try viral-wgpu with", 56, VisionInput::Tiles) }),
};

/// A tiny model of pictures of `image` pixels a side.
const fn tiny(title: &'static str, image: usize, input: VisionInput) -> Complete {
    Complete {
        title,
        text: TextShape { vocab: 512, hidden: 128, intermediate: 256, layers: 4, heads: 4, kv_heads: 2 },
        clip: VisionShape { hidden: 64, intermediate: 128, layers: 3, heads: 4, image, patch: 14 },
        dinov2: VisionShape { hidden: 64, intermediate: 256, layers: 3, heads: 4, image, patch: 14 },
        max_positions: 512,
        scenes: SceneSet { pictures: 320, texts: 80, rounds: 2, scale: 1 },
        whole_sentences: false,
        input,
        config: include_str!("tiny.toml"),
    }
}

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
        input: VisionInput::Square,
        config: include_str!("small.toml"),
    }),
};

static ONE_B: Preset = Preset {
    name: "1b",
    help: "Configuration of a LLaVA of 1.2 billion parameters without weights, to measure on little hardware",
    content: Content::Published(|| Published {
        title: "A LLaVA of 1.2 billion parameters",
        small_vision: true,
        ..vicuna("", [2048, 8192, 16, 16], [1, 128])
    }),
};

static LLAVA_7B: Preset = Preset {
    name: "llava-1.5-7b",
    help: "Configuration of LLaVA-1.5 7B without weights, to plan a run",
    content: Content::Published(|| vicuna("LLaVA-1.5 on Vicuna 7B", [4096, 11008, 32, 32], [16, 8])),
};

static LLAVA_NEXT_7B: Preset = Preset {
    name: "llava-next-7b",
    help: "Configuration of LLaVA-NeXT (1.6) on Vicuna 7B without weights, to plan a run",
    content: Content::Published(|| Published {
        input: VisionInput::Tiles,
        ..vicuna("LLaVA-NeXT on Vicuna 7B", [4096, 11008, 32, 32], [4, 32])
    }),
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
pub static PRESETS: [&Preset; 8] = [&TINY, &TINY_NEXT, &SMALL, &ONE_B, &LLAVA_7B, &LLAVA_13B, &QWEN_7B, &LLAVA_NEXT_7B];

impl Preset {
    /// Whether the folder holds configurations only.
    pub(super) fn is_published(&self) -> bool {
        matches!(self.content, Content::Published(_))
    }

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
    input: VisionInput,
    /// Whether vision encoder and teacher are small ones: six and three blocks of width 256, 64 visual tokens.
    small_vision: bool,
}

/// Visual tokens a side, width and heads of small vision networks.
const SMALL_VISION: [usize; 3] = [8, 256, 4];

impl Published {
    /// Writes the configurations of the model, the teacher and the run.
    pub(super) fn write(&self, dir: &Path, parts: &Parts) -> Result<()> {
        let encoder = parts.encoder.unwrap_or(Encoder::Clip);
        let teacher = parts.teacher.unwrap_or(&TEACHERS[0]);
        let [grid, width, heads] = SMALL_VISION;
        let (vision, target) = match self.small_vision {
            true => (encoder.small(grid, width, heads), teacher.tiny(width, heads, grid)),
            false => (encoder.published(), teacher.published()),
        };
        let side = |key: &str| vision[key].as_u64().unwrap_or(1) as usize;
        let (image, patch) = (side("image_size"), side("patch_size"));
        write_json(&dir.join("llava/config.json"), &self.llava(encoder, vision, (image / patch).pow(2)))?;
        write_json(&dir.join("llava/preprocessor_config.json"), &self.input.processor(encoder, image))?;
        write_json(&dir.join(teacher.folder).join("config.json"), &target)?;
        // The paper's, where the model is deep enough.
        let depth = self.text["num_hidden_layers"].as_u64().unwrap_or(1);
        let layer = if depth > 16 { 16 } else { depth / 2 };
        let mut config = include_str!("published.toml")
            .replace("{layer}", &layer.to_string())
            .replace("{title}", self.title)
            .replace("{target}", teacher.help)
            .replace("{teacher}", teacher.folder)
            .replace("{template}", self.template)
            .replace("{batch}", &self.batch.to_string())
            .replace("{accumulation}", &self.accumulation.to_string())
            .replace("{max_length}", &self.input.max_length().to_string());
        if parts.ross {
            write_json(&dir.join(VAE).join("config.json"), &flux_vae())?;
            config = with_ross(&config, "");
        }
        write(&dir.join("config.toml"), config)
    }

    fn llava(&self, encoder: Encoder, vision: Value, visual_tokens: usize) -> Value {
        let input = self.input.model(vision["image_size"].as_u64().unwrap_or(1));
        merged(
            json!({
                "ignore_index": -100,
                "image_seq_length": visual_tokens,
                "image_token_index": self.image_token,
                "pad_token_id": self.pad_token,
                "projector_hidden_act": "gelu",
                "multimodal_projector_bias": true,
                "tie_word_embeddings": false,
                "torch_dtype": "float16",
                "text_config": self.text,
                "vision_config": vision,
            }),
            merged(encoder.features(), input),
        )
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
    Published {
        title,
        text,
        image_token: 32000,
        pad_token: 32001,
        template: "vicuna_v1",
        batch,
        accumulation,
        input: VisionInput::Square,
        small_vision: false,
    }
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
        input: VisionInput::Square,
        small_vision: false,
    }
}
