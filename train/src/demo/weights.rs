//! Random weights for the demo's networks, under the names of the Hugging Face files.
//!
//! The language model learns only through low-rank updates of its linear maps; embeddings, norms and head stay as they
//! are drawn here. So the head's rows are long enough that a hidden state which points along one of them is a
//! confident prediction, and the embeddings are large beside what the untrained layers add, so that a token's identity
//! survives to the last layer.
//!
//! Random vision models answer to a bright background above all. Both embeddings therefore take the mean background off,
//! so that features differ where the pictures do, and aligning with the teacher is more than learning its mean.

use viral_model::config::{IMAGENET_MEAN, IMAGENET_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, VaeConfig};
use viral_model::graph::teachers::Teacher;
use viral_model::weights::{Inventory, TensorSpec};

use super::parts::{Encoder, Language};
use super::scenes::MEAN_BACKGROUND;
use crate::random::Random;

/// A tensor to be written.
pub(super) struct Tensor {
    /// Name in the file.
    pub(super) name: String,
    /// Extents.
    pub(super) shape: Vec<usize>,
    /// Row-major values.
    pub(super) values: Vec<f32>,
}

/// Extents of the language model.
#[derive(Debug)]
pub(super) struct TextShape {
    pub(super) vocab: usize,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
}

/// Extents of a vision transformer.
#[derive(Clone, Copy, Debug)]
pub(super) struct VisionShape {
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) image: usize,
    pub(super) patch: usize,
}

impl VisionShape {
    /// Patches and the class token.
    fn positions(&self) -> usize {
        self.patches() + 1
    }

    fn patches(&self) -> usize {
        (self.image / self.patch).pow(2)
    }
}

/// A vision encoder.
pub(super) struct Tower {
    pub(super) encoder: Encoder,
    pub(super) shape: VisionShape,
}

impl Tower {
    /// Tokens in front of the patches.
    pub(super) fn class_tokens(&self) -> usize {
        usize::from(self.encoder == Encoder::Clip)
    }
}

/// The logit of a normalised state that is aligned with a row of the head: its deviation times the model's width.
const ALIGNED_LOGIT: f64 = 15.36;
/// Deviation of the vision models' position tables, well below what a coloured patch adds.
const POSITION_STD: f64 = 0.5;
/// Deviation of biases that a network has by design.
const BIAS_STD: f64 = 0.1;

/// LLaVA: the vision tower, the projector and the language model.
pub(super) fn llava(text: &TextShape, language: Option<Language>, tower: &Tower, seed: u64) -> Vec<Tensor> {
    let mut out = Writer::new(seed, "llava");
    vision(&mut out, tower);
    out.linear("multi_modal_projector.linear_1", text.hidden, tower.shape.hidden, 1.0, true);
    out.linear("multi_modal_projector.linear_2", text.hidden, text.hidden, 1.0, true);

    let kv = text.hidden / text.heads * text.kv_heads;
    out.normal("language_model.model.embed_tokens.weight", &[text.vocab, text.hidden], 1.0);
    for layer in 0..text.layers {
        let prefix = format!("language_model.model.layers.{layer}");
        let mut linear = |name: &str, rows, columns, gain| {
            out.linear(&format!("{prefix}.{name}"), rows, columns, gain, false);
        };
        linear("self_attn.q_proj", text.hidden, text.hidden, 1.0);
        linear("self_attn.k_proj", kv, text.hidden, 1.0);
        linear("self_attn.v_proj", kv, text.hidden, 1.0);
        if language == Some(Language::Qwen) {
            for (name, rows) in [("q_proj", text.hidden), ("k_proj", kv), ("v_proj", kv)] {
                out.normal(&format!("{prefix}.self_attn.{name}.bias"), &[rows], BIAS_STD);
            }
        }
        let mut linear = |name: &str, rows, columns, gain| {
            out.linear(&format!("{prefix}.{name}"), rows, columns, gain, false);
        };
        linear("self_attn.o_proj", text.hidden, text.hidden, 0.5);
        linear("mlp.gate_proj", text.intermediate, text.hidden, 1.0);
        linear("mlp.up_proj", text.intermediate, text.hidden, 1.0);
        linear("mlp.down_proj", text.hidden, text.intermediate, 0.5);
        out.constant(&format!("{prefix}.input_layernorm.weight"), &[text.hidden], 1.0);
        out.constant(&format!("{prefix}.post_attention_layernorm.weight"), &[text.hidden], 1.0);
    }
    out.constant("language_model.model.norm.weight", &[text.hidden], 1.0);
    out.normal("language_model.lm_head.weight", &[text.vocab, text.hidden], ALIGNED_LOGIT / text.hidden as f64);
    out.tensors
}

/// What ends a row of patches in a LLaVA-NeXT.
pub(super) fn newline(text: &TextShape, seed: u64) -> Tensor {
    let values = Random::new(seed, "llava/image_newline").normal(text.hidden, 1.0);
    Tensor { name: "image_newline".into(), shape: vec![text.hidden], values }
}

/// The teacher: a DINOv2.
pub(super) fn dinov2(shape: &VisionShape, seed: u64) -> Vec<Tensor> {
    let mut out = Writer::new(seed, "dinov2");
    let hidden = shape.hidden;
    out.normal("embeddings.cls_token", &[1, 1, hidden], 0.02);
    out.constant("embeddings.mask_token", &[1, hidden], 0.0);
    out.normal("embeddings.position_embeddings", &[1, shape.positions(), hidden], POSITION_STD);
    let ground = out.patches("embeddings.patch_embeddings.projection", shape, IMAGENET_MEAN, IMAGENET_STD);
    out.push("embeddings.patch_embeddings.projection.bias", &[hidden], ground.iter().map(|value| -value).collect());
    for layer in 0..shape.layers {
        let prefix = format!("encoder.layer.{layer}");
        out.norm(&format!("{prefix}.norm1"), hidden);
        out.norm(&format!("{prefix}.norm2"), hidden);
        for name in ["query", "key", "value"] {
            out.linear(&format!("{prefix}.attention.attention.{name}"), hidden, hidden, 1.0, true);
        }
        out.linear(&format!("{prefix}.attention.output.dense"), hidden, hidden, 1.0, true);
        out.constant(&format!("{prefix}.layer_scale1.lambda1"), &[hidden], 0.3);
        out.constant(&format!("{prefix}.layer_scale2.lambda1"), &[hidden], 0.3);
        out.linear(&format!("{prefix}.mlp.fc1"), shape.intermediate, hidden, 1.0, true);
        out.linear(&format!("{prefix}.mlp.fc2"), hidden, shape.intermediate, 1.0, true);
    }
    out.norm("layernorm", hidden);
    out.tensors
}

/// Any other teacher, from the list of its tensors.
pub(super) fn teacher(teacher: &dyn Teacher, seed: u64) -> Vec<Tensor> {
    listed("teacher", Inventory::teacher(teacher).required, seed)
}

/// The encoder of an autoencoder.
pub(super) fn vae(config: &VaeConfig, seed: u64) -> Vec<Tensor> {
    listed("vae", Inventory::vae(config).required, seed)
}

/// Tensors that their names say enough of.
fn listed(network: &'static str, tensors: Vec<TensorSpec>, seed: u64) -> Vec<Tensor> {
    let mut out = Writer::new(seed, network);
    for TensorSpec { name, shape } in tensors {
        let fan_in: usize = shape.iter().skip(1).product();
        match name.rsplit('.').next().unwrap_or_default() {
            "lambda1" => out.constant(&name, &shape, 0.3),
            "norm_mean" => out.push(&name, &shape, OPENAI_CLIP_MEAN.map(|x| x as f32).to_vec()),
            "norm_std" => out.push(&name, &shape, OPENAI_CLIP_STD.map(|x| x as f32).to_vec()),
            "bias" => out.constant(&name, &shape, 0.0),
            "weight" if shape.len() == 1 => out.constant(&name, &shape, 1.0),
            "weight" if !name.contains("position") => out.normal(&name, &shape, 1.0 / (fan_in as f64).sqrt()),
            _ => out.normal(&name, &shape, POSITION_STD),
        }
    }
    out.tensors
}

fn vision(out: &mut Writer, tower: &Tower) {
    const PREFIX: &str = "vision_tower.vision_model";
    let (shape, hidden) = (&tower.shape, tower.shape.hidden);
    let patches = format!("{PREFIX}.embeddings.patch_embedding");
    let positions = format!("{PREFIX}.embeddings.position_embedding.weight");
    match tower.encoder {
        Encoder::Clip => {
            out.normal(&format!("{PREFIX}.embeddings.class_embedding"), &[hidden], 0.5);
            // CLIP's patch embedding has no bias, so the positions of the patches take the background off.
            let ground = out.patches(&patches, shape, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD);
            out.normal(&positions, &[shape.positions(), hidden], POSITION_STD);
            out.change_last(|index, value| if index < hidden { value } else { value - ground[index % hidden] });
            out.norm(&format!("{PREFIX}.pre_layrnorm"), hidden);
        }
        Encoder::Siglip2 | Encoder::Siglip2Patch14 => {
            let ground = out.patches(&patches, shape, [0.5; 3], [0.5; 3]);
            out.push(&format!("{patches}.bias"), &[hidden], ground.iter().map(|value| -value).collect());
            out.normal(&positions, &[shape.patches(), hidden], POSITION_STD);
        }
    }
    for layer in 0..shape.layers {
        let prefix = format!("{PREFIX}.encoder.layers.{layer}");
        for name in ["k_proj", "v_proj", "q_proj"] {
            out.linear(&format!("{prefix}.self_attn.{name}"), hidden, hidden, 1.0, true);
        }
        out.linear(&format!("{prefix}.self_attn.out_proj"), hidden, hidden, 0.5, true);
        out.norm(&format!("{prefix}.layer_norm1"), hidden);
        out.linear(&format!("{prefix}.mlp.fc1"), shape.intermediate, hidden, 1.0, true);
        out.linear(&format!("{prefix}.mlp.fc2"), hidden, shape.intermediate, 0.5, true);
        out.norm(&format!("{prefix}.layer_norm2"), hidden);
    }
    out.norm(&format!("{PREFIX}.post_layernorm"), hidden);
}

/// Collects tensors; each is drawn from a stream of its own.
struct Writer {
    seed: u64,
    network: &'static str,
    tensors: Vec<Tensor>,
}

impl Writer {
    fn new(seed: u64, network: &'static str) -> Self {
        Self { seed, network, tensors: Vec::new() }
    }

    fn push(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        self.tensors.push(Tensor { name: name.to_owned(), shape: shape.to_vec(), values });
    }

    fn normal(&mut self, name: &str, shape: &[usize], std: f64) {
        let mut random = Random::new(self.seed, &format!("{}/{name}", self.network));
        self.push(name, shape, random.normal(shape.iter().product(), std));
    }

    fn constant(&mut self, name: &str, shape: &[usize], value: f32) {
        self.push(name, shape, vec![value; shape.iter().product()]);
    }

    /// Replaces each value of the tensor that was pushed last, given its index.
    fn change_last(&mut self, change: impl Fn(usize, f32) -> f32) {
        let values = self.tensors.last_mut().map(|tensor| tensor.values.iter_mut().enumerate());
        for (index, value) in values.into_iter().flatten() {
            *value = change(index, *value);
        }
    }

    /// A linear map that multiplies the deviation of its input by `gain`, and a zero bias if it has one.
    fn linear(&mut self, name: &str, rows: usize, columns: usize, gain: f64, bias: bool) {
        self.normal(&format!("{name}.weight"), &[rows, columns], gain / (columns as f64).sqrt());
        if bias {
            self.constant(&format!("{name}.bias"), &[rows], 0.0);
        }
    }

    fn norm(&mut self, name: &str, len: usize) {
        self.constant(&format!("{name}.weight"), &[len], 1.0);
        self.constant(&format!("{name}.bias"), &[len], 0.0);
    }

    /// The weight of a patch embedding. Returns what it makes of a patch of the mean background, normalised with
    /// `mean` and `deviation`: `hidden` values.
    fn patches(&mut self, name: &str, shape: &VisionShape, mean: [f64; 3], deviation: [f64; 3]) -> Vec<f32> {
        let area = shape.patch * shape.patch;
        let std = 2.0 / ((3 * area) as f64).sqrt();
        self.normal(&format!("{name}.weight"), &[shape.hidden, 3, shape.patch, shape.patch], std);
        let colour = [0, 1, 2].map(|c| (MEAN_BACKGROUND[c] / 255.0 - mean[c]) / deviation[c]);
        let weight = self.tensors.last().map_or(&[][..], |tensor| &tensor.values);
        let respond = |filter: &[f32]| {
            let planes = filter.chunks(area).zip(colour);
            planes.map(|(plane, colour)| colour * plane.iter().map(|&w| f64::from(w)).sum::<f64>()).sum::<f64>() as f32
        };
        weight.chunks(3 * area).map(respond).collect()
    }
}
