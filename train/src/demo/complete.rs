//! Complete folders: a LLaVA, a teacher, a tokenizer, pictures and conversations, with random weights.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;

use image::ImageFormat;
use serde_json::{Value, json};
use tokenizers::Tokenizer;
use viral_model::config::VaeConfig;
use viral_model::graph::teachers;
use viral_model::weights::{TensorOut, write_safetensors};

use super::parts::{self, Encoder, Language, Parts, TEACHERS, TeacherPart, siglip};
use super::scenes::{self, SceneSet, Scenes};
use super::tokenizer::{self, IMAGE, PAD, SPECIALS};
use super::vision_input::VisionInput;
use super::weights::{self, Tensor, TextShape, Tower, VisionShape};
use super::{VAE, merged, with_ross, write, write_json};
use crate::error::{Error, Kind, Result};

const README: &str = include_str!("complete.md");

/// What the template says around every conversation; the tokenizer learns from it as well.
const TEMPLATE: [&str; 3] = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "USER: ASSISTANT:",
];

/// A folder in which everything is there.
#[derive(Debug)]
pub(super) struct Complete {
    /// First line of the folder's README.
    pub(super) title: &'static str,
    pub(super) text: TextShape,
    pub(super) clip: VisionShape,
    pub(super) dinov2: VisionShape,
    /// Longest sequence that the model is made for.
    pub(super) max_positions: usize,
    pub(super) scenes: SceneSet,
    /// Whether a sentence of the template is one token, which makes samples short.
    pub(super) whole_sentences: bool,
    /// How the model sees pictures.
    pub(super) input: VisionInput,
    /// Content of `config.toml`.
    pub(super) config: &'static str,
}

impl Complete {
    /// Writes the whole folder, with other parts in the place of its own.
    pub(super) fn write(&self, dir: &Path, parts: &Parts, seed: u64) -> Result<()> {
        self.write_all_but_weights(dir, parts, seed)?;
        let mut llava = weights::llava(&self.text, parts.language, &self.tower(parts), seed);
        if self.input == VisionInput::Tiles {
            llava.push(weights::newline(&self.text, seed));
        }
        write_weights(&dir.join("llava/model.safetensors"), &llava)?;
        let teacher = match parts.teacher {
            None => weights::dinov2(&self.dinov2, seed),
            Some(part) => {
                let config = self.teacher_config(part).to_string();
                let teacher = teachers::from_json(Path::new(part.folder), config.as_bytes())?;
                weights::teacher(&*teacher, seed)
            }
        };
        write_weights(&dir.join(teacher_folder(parts)).join("model.safetensors"), &teacher)?;
        if parts.ross {
            let vae = VaeConfig::from_json(Path::new(VAE), tiny_vae().to_string().as_bytes())?;
            write_weights(&dir.join(VAE).join("diffusion_pytorch_model.safetensors"), &weights::vae(&vae, seed))?;
        }
        Ok(())
    }

    /// Writes configurations, tokenizer and data.
    pub(super) fn write_all_but_weights(&self, dir: &Path, parts: &Parts, seed: u64) -> Result<()> {
        let scenes = scenes::generate(&self.scenes, seed);
        write_data(dir, &scenes)?;
        let sentences: &[&str] = if self.whole_sentences { &TEMPLATE[..2] } else { &[] };
        let text = format!("{}\n{}", TEMPLATE.join(" "), scenes.text());
        self.write_llava(&dir.join("llava"), &tokenizer::train(&text, sentences, self.text.vocab)?, parts)?;
        let folder = teacher_folder(parts);
        let config = parts.teacher.map_or_else(|| self.dinov2_config(), |part| self.teacher_config(part));
        write_json(&dir.join(folder).join("config.json"), &config)?;
        let mut config = self.config.replace("teacher = \"dinov2\"", &format!("teacher = \"{folder}\""));
        let mut more = "";
        if parts.ross {
            write_json(&dir.join(VAE).join("config.json"), &tiny_vae())?;
            config = with_ross(&config, "width = 64\ndepth = 2\nheads = 4\n");
            more = "| `vae/` | an autoencoder, in the layout of diffusers |\n";
        }
        let readme = README.replace("{title}", self.title).replace("{teacher}", folder).replace("{more}", more);
        write(&dir.join("README.md"), readme)?;
        write(&dir.join("config.toml"), config)
    }

    /// The vision encoder: CLIP's shape, or a SigLIP of the same number of visual tokens.
    fn tower(&self, parts: &Parts) -> Tower {
        match parts.encoder.unwrap_or(Encoder::Clip) {
            Encoder::Clip => Tower { encoder: Encoder::Clip, shape: self.clip },
            encoder => {
                let patch = if encoder == Encoder::Siglip2 { 16 } else { 14 };
                let image = self.clip.image / self.clip.patch * patch;
                Tower { encoder, shape: VisionShape { image, patch, ..self.clip } }
            }
        }
    }

    fn teacher_config(&self, part: &TeacherPart) -> Value {
        part.tiny(self.dinov2.hidden, self.dinov2.heads, self.clip.image / self.clip.patch)
    }

    fn write_llava(&self, dir: &Path, tokenizer: &Tokenizer, parts: &Parts) -> Result<()> {
        let tower = self.tower(parts);
        let ids = tokenizer::special_ids(tokenizer);
        write_json(&dir.join("config.json"), &self.llava_config(&ids, parts))?;
        let text = tokenizer
            .to_string(true)
            .map_err(|error| Error::internal("cannot encode the demo's tokenizer", error.to_string()))?;
        write(&dir.join("tokenizer.json"), text + "\n")?;
        write_json(&dir.join("tokenizer_config.json"), &self.tokenizer_config(&ids))?;
        write_json(
            &dir.join("special_tokens_map.json"),
            &json!({"bos_token": SPECIALS[1], "eos_token": SPECIALS[2], "pad_token": PAD, "unk_token": SPECIALS[0]}),
        )?;
        write_json(
            &dir.join("generation_config.json"),
            &json!({"bos_token_id": ids.get(SPECIALS[1]), "eos_token_id": ids.get(SPECIALS[2]), "pad_token_id": ids.get(PAD)}),
        )?;
        write_json(&dir.join("preprocessor_config.json"), &self.input.processor(tower.encoder, tower.shape.image))?;
        write_json(
            &dir.join("processor_config.json"),
            &json!({
                "processor_class": self.input.processor_class(),
                "image_token": IMAGE,
                "num_additional_image_tokens": tower.class_tokens(),
                "patch_size": tower.shape.patch,
                "vision_feature_select_strategy": tower.encoder.features()["vision_feature_select_strategy"],
            }),
        )
    }

    fn llava_config(&self, ids: &HashMap<&str, u32>, parts: &Parts) -> Value {
        let Tower { encoder, shape } = self.tower(parts);
        let vision = match encoder {
            Encoder::Clip => json!({
                "model_type": "clip_vision_model",
                "hidden_size": shape.hidden,
                "intermediate_size": shape.intermediate,
                "num_hidden_layers": shape.layers,
                "num_attention_heads": shape.heads,
                "image_size": shape.image,
                "patch_size": shape.patch,
                "projection_dim": shape.hidden,
                "hidden_act": "quick_gelu",
                "layer_norm_eps": 1e-5,
            }),
            Encoder::Siglip2 | Encoder::Siglip2Patch14 => {
                siglip(shape.image, shape.patch, [shape.hidden, shape.intermediate, shape.layers, shape.heads])
            }
        };
        let family = match parts.language.unwrap_or(Language::Vicuna) {
            Language::Vicuna => json!({"model_type": "llama", "rms_norm_eps": 1e-5, "rope_theta": 10000.0}),
            Language::Qwen => json!({
                "model_type": "qwen2",
                "rms_norm_eps": 1e-6,
                "rope_theta": 1_000_000.0,
                "use_sliding_window": false,
            }),
        };
        let text = json!({
            "vocab_size": self.text.vocab,
            "hidden_size": self.text.hidden,
            "intermediate_size": self.text.intermediate,
            "num_hidden_layers": self.text.layers,
            "num_attention_heads": self.text.heads,
            "num_key_value_heads": self.text.kv_heads,
            "max_position_embeddings": self.max_positions,
            "hidden_act": "silu",
            "bos_token_id": ids.get(SPECIALS[1]),
            "eos_token_id": ids.get(SPECIALS[2]),
            "pad_token_id": ids.get(PAD),
            "tie_word_embeddings": false,
        });
        merged(
            json!({
                "ignore_index": -100,
                "image_seq_length": (shape.image / shape.patch).pow(2),
                "image_token_index": ids.get(IMAGE),
                "pad_token_id": ids.get(PAD),
                "projector_hidden_act": "gelu",
                "multimodal_projector_bias": true,
                "tie_word_embeddings": false,
                "torch_dtype": "float32",
                "text_config": merged(text, family),
                "vision_config": vision,
            }),
            merged(encoder.features(), self.input.model(shape.image as u64)),
        )
    }

    fn tokenizer_config(&self, ids: &HashMap<&str, u32>) -> Value {
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
            "model_max_length": self.max_positions,
            "padding_side": "right",
            "processor_class": self.input.processor_class(),
            "added_tokens_decoder": decoder,
        })
    }

    fn dinov2_config(&self) -> Value {
        json!({
            "architectures": ["Dinov2Model"],
            "model_type": "dinov2",
            "hidden_size": self.dinov2.hidden,
            "num_hidden_layers": self.dinov2.layers,
            "num_attention_heads": self.dinov2.heads,
            "mlp_ratio": self.dinov2.intermediate / self.dinov2.hidden,
            "image_size": self.dinov2.image,
            "patch_size": self.dinov2.patch,
            "layer_norm_eps": 1e-6,
            "hidden_act": "gelu",
            "qkv_bias": true,
            "use_swiglu_ffn": false,
            "torch_dtype": "float32",
        })
    }
}

/// `config.json` of an autoencoder with as many blocks as FLUX's, so that it sees pictures of the same size.
fn tiny_vae() -> Value {
    parts::vae(&[8, 8, 16, 16], 1, 4, 4)
}

/// Where the teacher is.
fn teacher_folder(parts: &Parts) -> &'static str {
    parts.teacher.unwrap_or(&TEACHERS[0]).folder
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
