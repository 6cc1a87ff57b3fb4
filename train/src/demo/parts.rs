//! What the models of a folder are made of: language model, vision encoder and teacher, each chosen by name.
//!
//! A preset has parts of its own; any of them may be swapped for one of these, at the size of the preset.

use serde_json::{Value, json};

use super::presets::Preset;
use crate::error::{Error, Kind, Result};

/// The parts that take the place of a preset's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts {
    /// The language model. Presets of published models say which by their name.
    pub language: Option<Language>,
    /// The vision encoder.
    pub encoder: Option<Encoder>,
    /// The teacher.
    pub teacher: Option<&'static TeacherPart>,
    /// Whether there is an autoencoder too, and pictures are reconstructed.
    pub ross: bool,
}

/// A family of language models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// LLaMA.
    Vicuna,
    /// Biases on query, key and value, shared keys and values, and a larger rotary base.
    Qwen,
}

/// A vision encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// CLIP ViT-L/14 at 336 pixels: 576 visual tokens.
    Clip,
    /// SigLIP 2 so400m/16 at 384 pixels: 576 visual tokens.
    Siglip2,
    /// SigLIP 2 so400m/14 at 384 pixels: 729 visual tokens.
    Siglip2Patch14,
}

/// A teacher that a folder can be written with.
#[derive(Debug)]
pub struct TeacherPart {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is, in one line.
    pub help: &'static str,
    /// Name of the folder it is in.
    pub(super) folder: &'static str,
    network: Network,
    /// Width, blocks and heads of the published model.
    size: [usize; 3],
}

/// The networks of teachers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Dinov2 { registers: bool },
    Clip,
    Siglip2,
    Sam,
    DepthAnything,
    Radio,
}

impl Language {
    /// Every one with its name on the command line.
    pub const ALL: [(&'static str, Self); 2] = [("vicuna", Self::Vicuna), ("qwen2.5", Self::Qwen)];
}

impl Encoder {
    /// Every one with its name on the command line.
    pub const ALL: [(&'static str, Self); 3] =
        [("clip", Self::Clip), ("siglip2", Self::Siglip2), ("siglip2-patch14", Self::Siglip2Patch14)];

    /// `vision_config` of the published model.
    pub(super) fn published(self) -> Value {
        match self {
            Self::Clip => clip(336, [1024, 4096, 24, 16]),
            Self::Siglip2 => siglip(384, 16, [1152, 4304, 27, 16]),
            Self::Siglip2Patch14 => siglip(384, 14, [1152, 4304, 27, 16]),
        }
    }

    /// `vision_config` of a model of six blocks with `grid` visual tokens a side.
    pub(super) fn small(self, grid: usize, width: usize, heads: usize) -> Value {
        match self {
            Self::Clip => clip(14 * grid, [width, 4 * width, 6, heads]),
            Self::Siglip2 => siglip(16 * grid, 16, [width, 4 * width, 6, heads]),
            Self::Siglip2Patch14 => siglip(14 * grid, 14, [width, 4 * width, 6, heads]),
        }
    }

    /// Keys of the model's `config.json` that depend on the encoder.
    pub(super) fn features(self) -> Value {
        let strategy = match self {
            Self::Clip => "default",
            Self::Siglip2 | Self::Siglip2Patch14 => "full",
        };
        json!({"vision_feature_layer": -2, "vision_feature_select_strategy": strategy})
    }

    /// Settings of the image processor `class` for square pictures, or tiles, of `side` pixels.
    pub(super) fn processor(self, class: &str, side: usize) -> Value {
        match self {
            Self::Clip => super::clip_processor(class, side),
            Self::Siglip2 | Self::Siglip2Patch14 => json!({
                "image_processor_type": class,
                "do_convert_rgb": true,
                "do_resize": true,
                "size": {"height": side, "width": side},
                "resample": 2,
                "do_center_crop": false,
                "do_rescale": true,
                "rescale_factor": 1.0 / 255.0,
                "do_normalize": true,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
            }),
        }
    }
}

/// Every teacher; the first one is that of the presets.
pub static TEACHERS: &[TeacherPart] = {
    use Network::{Clip, DepthAnything, Radio, Sam, Siglip2};
    const DINOV2: Network = Network::Dinov2 { registers: false };
    const REGISTERS: Network = Network::Dinov2 { registers: true };
    const SMALL: [usize; 3] = [384, 12, 6];
    const BASE: [usize; 3] = [768, 12, 12];
    const LARGE: [usize; 3] = [1024, 24, 16];
    const GIANT: [usize; 3] = [1536, 40, 24];
    const HUGE: [usize; 3] = [1280, 32, 16];
    const SO400M: [usize; 3] = [1152, 27, 16];
    const fn part(
        name: &'static str,
        help: &'static str,
        folder: &'static str,
        network: Network,
        size: [usize; 3],
    ) -> TeacherPart {
        TeacherPart { name, help, folder, network, size }
    }
    &[
        part("dinov2-b", "DINOv2 ViT-B/14", "dinov2", DINOV2, BASE),
        part("dinov2-s", "DINOv2 ViT-S/14", "dinov2", DINOV2, SMALL),
        part("dinov2-l", "DINOv2 ViT-L/14", "dinov2", DINOV2, LARGE),
        part("dinov2-g", "DINOv2 ViT-g/14", "dinov2", DINOV2, GIANT),
        part("dinov2-reg-s", "DINOv2 ViT-S/14 with registers", "dinov2", REGISTERS, SMALL),
        part("dinov2-reg-b", "DINOv2 ViT-B/14 with registers", "dinov2", REGISTERS, BASE),
        part("dinov2-reg-l", "DINOv2 ViT-L/14 with registers", "dinov2", REGISTERS, LARGE),
        part("dinov2-reg-g", "DINOv2 ViT-g/14 with registers", "dinov2", REGISTERS, GIANT),
        part("clip-l", "CLIP ViT-L/14 at 336 pixels", "clip", Clip, LARGE),
        part("siglip2-so400m", "SigLIP 2 so400m/16 at 384 pixels", "siglip2", Siglip2, SO400M),
        part("sam-b", "SAM ViT-B", "sam", Sam, BASE),
        part("sam-l", "SAM ViT-L", "sam", Sam, LARGE),
        part("sam-h", "SAM ViT-H", "sam", Sam, HUGE),
        part("depth-anything-v2-s", "Depth Anything V2 ViT-S", "depth-anything-v2", DepthAnything, SMALL),
        part("depth-anything-v2-b", "Depth Anything V2 ViT-B", "depth-anything-v2", DepthAnything, BASE),
        part("depth-anything-v2-l", "Depth Anything V2 ViT-L", "depth-anything-v2", DepthAnything, LARGE),
        part("radio-v2.5-b", "RADIO v2.5 ViT-B/16", "radio", Radio, BASE),
        part("radio-v2.5-l", "RADIO v2.5 ViT-L/16", "radio", Radio, LARGE),
        part("radio-v2.5-h", "RADIO v2.5 ViT-H/16", "radio", Radio, HUGE),
        part("radio-v2.5-g", "RADIO v2.5 ViT-g/14", "radio", Radio, GIANT),
    ]
};

impl TeacherPart {
    /// The teacher of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        TEACHERS.iter().find(|teacher| teacher.name == name)
    }

    /// `config.json` of the published model.
    pub(super) fn published(&self) -> Value {
        let [hidden, layers, heads] = self.size;
        match self.network {
            Network::Dinov2 { registers } => dinov2(518, self.size, self.is_gated(), registers.then_some(4)),
            Network::DepthAnything => depth_anything(518, self.size),
            Network::Clip => clip(336, [hidden, 4 * hidden, layers, heads]),
            Network::Siglip2 => siglip(384, 16, [hidden, 4304, layers, heads]),
            Network::Sam => {
                // Every fourth part of the blocks ends with one that attends over the whole picture.
                let global: Vec<usize> = (1..=4).map(|part| part * layers / 4 - 1).collect();
                sam(1024, self.size, &global, 14, 256)
            }
            // Four class tokens and as many registers; the giant has the tokens of its DINOv2.
            Network::Radio if self.is_gated() => radio_giant(1792, self.size),
            Network::Radio => radio(2048, self.size, [4, 4]),
        }
    }

    /// `config.json` of a model of `hidden` and three blocks whose features are a grid of `grid` points a side.
    pub(super) fn tiny(&self, hidden: usize, heads: usize, grid: usize) -> Value {
        let size = [hidden, 3, heads];
        // SAM and RADIO have a canvas that is larger than the picture.
        let canvas = 16 * (grid + 4);
        match self.network {
            Network::Dinov2 { registers } => dinov2(14 * grid, size, self.is_gated(), registers.then_some(4)),
            Network::DepthAnything => depth_anything(14 * (grid + 2), size),
            Network::Clip => clip(14 * grid, [hidden, 4 * hidden, 3, heads]),
            Network::Siglip2 => siglip(16 * grid, 16, [hidden, 4 * hidden, 3, heads]),
            Network::Sam => sam(canvas, size, &[2], 4, hidden),
            Network::Radio if self.is_gated() => radio_giant(14 * (grid + 4), size),
            Network::Radio => radio(canvas, size, [2, 2]),
        }
    }

    /// Whether it is the giant DINOv2, or the RADIO that is made of one, whose feed-forward part is gated.
    fn is_gated(&self) -> bool {
        matches!(self.network, Network::Dinov2 { .. } | Network::Radio) && self.size[0] == 1536
    }
}

impl Parts {
    /// The language model must be a choice that the preset leaves.
    pub(super) fn check(&self, preset: &Preset) -> Result<()> {
        let Some(language) = self.language.filter(|_| preset.is_published()) else { return Ok(()) };
        let name = Language::ALL.iter().find(|(_, other)| *other == language).map_or("", |(name, _)| name);
        Err(Error {
            kind: Kind::Config,
            what: format!("the preset `{}` has a language model of its own", preset.name),
            place: String::new(),
            why: format!("`--language {name}` belongs to presets with random weights"),
            hint: "leave --language out, and name the preset of the model that you want".into(),
        })
    }
}

/// `config.json` of FLUX.1's autoencoder.
pub(super) fn flux_vae() -> Value {
    vae(&[128, 256, 512, 512], 2, 32, 16)
}

/// `config.json` of an autoencoder like FLUX's.
pub(super) fn vae(channels: &[usize], layers_per_block: usize, groups: usize, latent_channels: usize) -> Value {
    let blocks = |kind: &str| vec![kind.to_owned(); channels.len()];
    json!({
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": channels,
        "down_block_types": blocks("DownEncoderBlock2D"),
        "up_block_types": blocks("UpDecoderBlock2D"),
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": latent_channels,
        "layers_per_block": layers_per_block,
        "mid_block_add_attention": true,
        "norm_num_groups": groups,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": false,
        "use_post_quant_conv": false,
    })
}

fn clip(image: usize, [hidden, intermediate, layers, heads]: [usize; 4]) -> Value {
    json!({
        "model_type": "clip_vision_model",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": image,
        "patch_size": 14,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    })
}

/// A tower of `[hidden, intermediate, layers, heads]`.
pub(super) fn siglip(image: usize, patch: usize, [hidden, intermediate, layers, heads]: [usize; 4]) -> Value {
    json!({
        "model_type": "siglip_vision_model",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": image,
        "patch_size": patch,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "vision_use_head": false,
    })
}

/// A DINOv2 of `[hidden, layers, heads]`, with or without a gated feed-forward part.
fn dinov2(image: usize, [hidden, layers, heads]: [usize; 3], gated: bool, registers: Option<usize>) -> Value {
    let mut config = json!({
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "mlp_ratio": 4,
        "image_size": image,
        "patch_size": 14,
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
        "qkv_bias": true,
        "use_swiglu_ffn": gated,
        "torch_dtype": "float32",
    });
    if let Some(registers) = registers {
        config["architectures"] = json!(["Dinov2WithRegistersModel"]);
        config["model_type"] = json!("dinov2_with_registers");
        config["num_register_tokens"] = json!(registers);
    }
    config
}

fn depth_anything(image: usize, size: [usize; 3]) -> Value {
    json!({
        "architectures": ["DepthAnythingForDepthEstimation"],
        "model_type": "depth_anything",
        "backbone_config": dinov2(image, size, false, None),
        "torch_dtype": "float32",
    })
}

fn sam(canvas: usize, [hidden, layers, heads]: [usize; 3], global: &[usize], window: usize, outputs: usize) -> Value {
    json!({
        "architectures": ["SamModel"],
        "model_type": "sam",
        "torch_dtype": "float32",
        "vision_config": {
            "model_type": "sam_vision_model",
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "image_size": canvas,
            "patch_size": 16,
            "window_size": window,
            "global_attn_indexes": global,
            "output_channels": outputs,
            "mlp_ratio": 4.0,
            "layer_norm_eps": 1e-6,
        },
    })
}

fn radio(canvas: usize, [hidden, layers, heads]: [usize; 3], [classes, registers]: [usize; 2]) -> Value {
    json!({
        "architectures": ["RadioModel"],
        "model_type": "radio",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "mlp_ratio": 4.0,
        "patch_size": 16,
        "max_img_size": canvas,
        "num_cls_tokens": classes,
        "num_registers": registers,
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
        "torch_dtype": "float32",
    })
}

/// RADIO's front end before the blocks of a DINOv2.
fn radio_giant(canvas: usize, size: [usize; 3]) -> Value {
    super::merged(
        radio(canvas, size, [1, 4]),
        json!({
            "patch_size": 14,
            "use_swiglu_ffn": true,
            "layer_scale": true,
            "patch_bias": true,
            "model_norm": true,
        }),
    )
}
