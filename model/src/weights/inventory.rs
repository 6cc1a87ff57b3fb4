//! Which tensors a model consists of, computed from its configuration.

use std::collections::BTreeMap;
use std::path::Path;

use super::{CheckpointError, ShapeMismatch};
use crate::config::{LlavaConfig, TextConfig, VaeConfig, VisionConfig, VisionFamily};
use crate::graph::teachers::{self, Teacher};
use crate::graph::vae;

/// A tensor that must be present: canonical name and shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Canonical name.
    pub name: String,
    /// Extents.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A spec from its parts.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), shape: shape.into() }
    }
}

/// The tensors of a model, and those that its files may hold besides without being used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Tensors that must be present, in the order of a forward pass.
    pub required: Vec<TensorSpec>,
    /// Prefixes of names that may be present and are not read.
    pub unused: Vec<String>,
    /// Names of tables that may have another number of rows, to which they are resampled.
    pub any_rows: Vec<String>,
}

impl Inventory {
    /// A LLaVA model. Vision blocks behind the feature layer are not required, nor is the head when it shares the
    /// embedding table.
    pub fn llava(config: &LlavaConfig) -> Self {
        let mut inventory = Self::default();
        inventory.vision("model.vision_tower", &config.vision, config.vision_blocks());
        inventory.required.extend(Self::multi_modal_projector(config).required);
        if config.tiling.is_some() {
            inventory.need("model.image_newline", [config.text.hidden_size]);
        }
        inventory.decoder("model.language_model", &config.text);
        if config.tied_head() {
            inventory.unused.push("lm_head.weight".into());
        } else {
            inventory.need("lm_head.weight", [config.text.vocab_size, config.text.hidden_size]);
        }
        // Checkpoints of the reference release carry along what was trained or frozen beside the model.
        let beside = ["alignment_encoder.", "alignment_projector.", "denoiser.", "model.pixel_decoder."];
        inventory.unused.extend(beside.map(str::to_string));
        inventory
    }

    /// The multi-modal projector alone.
    pub fn multi_modal_projector(config: &LlavaConfig) -> Self {
        let mut inventory = Self::default();
        let (vision, hidden) = (config.feature_width(), config.text.hidden_size);
        inventory.linear("model.multi_modal_projector.linear_1", hidden, vision, config.projector_bias);
        inventory.linear("model.multi_modal_projector.linear_2", hidden, hidden, config.projector_bias);
        inventory
    }

    /// A teacher, under its canonical names: the tensors that its network reads.
    pub fn teacher(teacher: &dyn Teacher) -> Self {
        let required = teachers::tensors(teacher);
        let is_relative = |name: &str| name.ends_with(".rel_pos_h") || name.ends_with(".rel_pos_w");
        Self {
            any_rows: required.iter().map(|(name, _)| name.clone()).filter(|name| is_relative(name)).collect(),
            required: required.into_iter().map(|(name, shape)| TensorSpec { name, shape }).collect(),
            unused: teacher.unused(),
        }
    }

    /// The encoder of a variational autoencoder; its decoder is not read.
    pub fn vae(config: &VaeConfig) -> Self {
        let required = vae::tensors(config).into_iter().map(|(name, shape)| TensorSpec { name, shape });
        Self {
            required: required.collect(),
            unused: vec!["decoder.".into(), "post_quant_conv.".into()],
            any_rows: Vec::new(),
        }
    }

    /// Compares names and shapes with what is expected. All differences are in the error.
    pub(crate) fn compare<'a>(
        &self,
        path: &Path,
        found: impl Iterator<Item = (&'a str, &'a [usize])>,
        hint: &'static str,
    ) -> Result<(), CheckpointError> {
        let mut found: BTreeMap<&str, &[usize]> = found.collect();
        let (mut missing, mut shapes) = (Vec::new(), Vec::new());
        for TensorSpec { name, shape } in &self.required {
            match found.remove(name.as_str()) {
                None => missing.push(name.clone()),
                Some(other) if other != shape && !(self.any_rows.contains(name) && fits_but_rows(other, shape)) => {
                    shapes.push(ShapeMismatch { name: name.clone(), expected: shape.clone(), found: other.to_vec() });
                }
                Some(_) => {}
            }
        }
        let is_unused = |name: &str| self.unused.iter().any(|prefix| name.starts_with(prefix.as_str()));
        let left_over: Vec<String> = found.into_keys().filter(|name| !is_unused(name)).map(str::to_string).collect();
        if missing.is_empty() && shapes.is_empty() && left_over.is_empty() {
            return Ok(());
        }
        Err(CheckpointError::Mismatch { path: path.to_path_buf(), missing, left_over, shapes, hint })
    }

    /// The first `blocks` blocks of a vision tower.
    fn vision(&mut self, prefix: &str, config: &VisionConfig, blocks: usize) {
        let (width, patch) = (config.hidden_size, config.patch_size);
        let is_clip = config.family == VisionFamily::Clip;
        if is_clip {
            self.need(format!("{prefix}.embeddings.class_embedding"), [width]);
        }
        self.need(format!("{prefix}.embeddings.patch_embedding.weight"), [width, 3, patch, patch]);
        if !is_clip {
            self.need(format!("{prefix}.embeddings.patch_embedding.bias"), [width]);
        }
        self.need(format!("{prefix}.embeddings.position_embedding.weight"), [config.positions(), width]);
        if is_clip {
            self.norm(&format!("{prefix}.pre_layrnorm"), width);
        }
        for layer in 0..blocks {
            let block = format!("{prefix}.encoder.layers.{layer}");
            self.norm(&format!("{block}.layer_norm1"), width);
            for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                self.linear(&format!("{block}.self_attn.{part}"), width, width, true);
            }
            self.norm(&format!("{block}.layer_norm2"), width);
            self.linear(&format!("{block}.mlp.fc1"), config.intermediate_size, width, true);
            self.linear(&format!("{block}.mlp.fc2"), width, config.intermediate_size, true);
        }
        self.unused.extend((blocks..config.layers).map(|layer| format!("{prefix}.encoder.layers.{layer}.")));
        self.unused.extend(["post_layernorm.", "head."].map(|part| format!("{prefix}.{part}")));
    }

    fn decoder(&mut self, prefix: &str, config: &TextConfig) {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let (query, kv) = (config.query_width(), config.kv_width());
        self.need(format!("{prefix}.embed_tokens.weight"), [config.vocab_size, hidden]);
        for layer in 0..config.layers {
            let block = format!("{prefix}.layers.{layer}");
            self.need(format!("{block}.input_layernorm.weight"), [hidden]);
            self.linear(&format!("{block}.self_attn.q_proj"), query, hidden, config.qkv_bias);
            self.linear(&format!("{block}.self_attn.k_proj"), kv, hidden, config.qkv_bias);
            self.linear(&format!("{block}.self_attn.v_proj"), kv, hidden, config.qkv_bias);
            self.linear(&format!("{block}.self_attn.o_proj"), hidden, query, config.output_bias);
            self.need(format!("{block}.post_attention_layernorm.weight"), [hidden]);
            self.linear(&format!("{block}.mlp.gate_proj"), wide, hidden, false);
            self.linear(&format!("{block}.mlp.up_proj"), wide, hidden, false);
            self.linear(&format!("{block}.mlp.down_proj"), hidden, wide, false);
        }
        self.need(format!("{prefix}.norm.weight"), [hidden]);
    }

    fn need(&mut self, name: impl Into<String>, shape: impl Into<Vec<usize>>) {
        self.required.push(TensorSpec::new(name, shape));
    }

    /// A linear layer's weight (out, in) and optional bias (out).
    fn linear(&mut self, name: &str, outputs: usize, inputs: usize, bias: bool) {
        self.need(format!("{name}.weight"), [outputs, inputs]);
        if bias {
            self.need(format!("{name}.bias"), [outputs]);
        }
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.need(format!("{name}.weight"), [width]);
        self.need(format!("{name}.bias"), [width]);
    }
}

/// Whether two shapes differ in their first extent at most, and none is empty.
fn fits_but_rows(found: &[usize], expected: &[usize]) -> bool {
    found.len() == expected.len() && found.first().is_some_and(|&rows| rows > 0) && found.get(1..) == expected.get(1..)
}
