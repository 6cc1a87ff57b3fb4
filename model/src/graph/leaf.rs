//! Leaves for the tensors of a checkpoint, and which of them are trained.

use viral_compiler::{Graph, Value};

use super::denoiser::POSITIONS;

/// Which tensors are trained. A trained tensor is a parameter of the graph, any other one a weight; the graph is the
/// same otherwise. The vision tower and the teacher are always frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trainable {
    /// The multi-modal projector.
    pub projector: bool,
    /// The alignment projectors.
    pub alignment: bool,
    /// The residual's adapter.
    pub residual: bool,
    /// The denoiser of the reconstructive objective.
    pub denoiser: bool,
    /// LoRA's matrices.
    pub adapters: bool,
    /// The decoder's own tensors: embedding table, layers, norms and head, and LLaVA-NeXT's newline.
    pub language: bool,
}

impl Trainable {
    /// Nothing: inference.
    pub const NOTHING: Self =
        Self { projector: false, alignment: false, residual: false, denoiser: false, adapters: false, language: false };
    /// Stage 1: the multi-modal projector, and a denoiser if there is one.
    pub const PRETRAIN: Self = Self { projector: true, denoiser: true, ..Self::NOTHING };
    /// Stage 2 with LoRA: the adapters and all modules around the decoder.
    pub const LORA: Self = Self { alignment: true, residual: true, adapters: true, ..Self::PRETRAIN };
    /// Stage 2 on all tensors of the decoder, and all modules around it.
    pub const FULL: Self = Self { adapters: false, language: true, ..Self::LORA };

    /// Whether the tensor of this name is trained.
    pub fn contains(self, name: &str) -> bool {
        match part_of(name) {
            Part::Frozen => false,
            Part::Projector => self.projector,
            Part::Alignment => self.alignment,
            Part::Residual => self.residual,
            Part::Denoiser => self.denoiser && name != POSITIONS,
            Part::Adapter => self.adapters,
            Part::Language => self.language,
        }
    }

    /// The leaf of the tensor of this name.
    pub fn leaf(self, g: &mut Graph, name: &str, shape: &[usize]) -> Value {
        if self.contains(name) { g.param(name, shape) } else { g.weight(name, shape) }
    }
}

/// The key under which a trained tensor is stored in an adapter directory: PEFT's for LoRA's matrices, the part's own
/// name for the projectors, and the checkpoint's name for the rest.
pub fn adapter_key(name: &str) -> String {
    match part_of(name) {
        Part::Adapter => format!("base_model.model.{name}"),
        Part::Projector => name.strip_prefix("model.").unwrap_or(name).to_owned(),
        Part::Alignment | Part::Residual | Part::Denoiser | Part::Language | Part::Frozen => name.to_owned(),
    }
}

/// What a tensor belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Frozen,
    Projector,
    Alignment,
    Residual,
    Denoiser,
    Adapter,
    Language,
}

/// What the tensor of this name belongs to.
pub(super) fn part_of(name: &str) -> Part {
    const PREFIXES: [(&str, Part); 7] = [
        ("model.multi_modal_projector.", Part::Projector),
        ("alignment_projector.", Part::Alignment),
        ("residual_projector.", Part::Residual),
        ("denoiser.", Part::Denoiser),
        ("model.language_model.", Part::Language),
        ("lm_head.", Part::Language),
        // As in the original code, LLaVA-NeXT's newline is trained where the decoder is.
        ("model.image_newline", Part::Language),
    ];
    if name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight") {
        return Part::Adapter;
    }
    PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or(Part::Frozen, |(_, part)| *part)
}

/// The tensors under one prefix, and the layers that consist of them.
#[derive(Clone, Debug)]
pub(super) struct Leaves {
    prefix: String,
    trainable: Trainable,
}

impl Leaves {
    /// Tensors named `prefix.…`.
    pub(super) fn new(prefix: impl Into<String>, trainable: Trainable) -> Self {
        Self { prefix: prefix.into(), trainable }
    }

    /// Tensors named `prefix.part.…`.
    pub(super) fn under(&self, part: &str) -> Self {
        Self { prefix: self.name(part), trainable: self.trainable }
    }

    /// The full name of a tensor.
    pub(super) fn name(&self, tensor: &str) -> String {
        format!("{}.{tensor}", self.prefix)
    }

    /// One tensor.
    pub(super) fn tensor(&self, g: &mut Graph, name: &str, shape: &[usize]) -> Value {
        self.trainable.leaf(g, &self.name(name), shape)
    }

    /// A linear layer: `x (…, K)`, result `(…, outputs)`.
    pub(super) fn linear(&self, g: &mut Graph, name: &str, x: Value, outputs: usize, bias: bool) -> Value {
        let layer = self.under(name);
        let weight = layer.tensor(g, "weight", &[outputs, width(g, x)]);
        let bias = bias.then(|| layer.tensor(g, "bias", &[outputs]));
        g.linear(x, weight, bias)
    }

    /// Layer normalisation of `x (…, D)`.
    pub(super) fn layer_norm(&self, g: &mut Graph, name: &str, x: Value, eps: f64) -> Value {
        let (layer, shape) = (self.under(name), [width(g, x)]);
        let weight = layer.tensor(g, "weight", &shape);
        let bias = layer.tensor(g, "bias", &shape);
        g.layer_norm(x, weight, bias, eps)
    }

    /// Root-mean-square normalisation of `x (…, D)`.
    pub(super) fn rms_norm(&self, g: &mut Graph, name: &str, x: Value, eps: f64) -> Value {
        let weight = self.under(name).tensor(g, "weight", &[width(g, x)]);
        g.rms_norm(x, weight, eps)
    }
}

/// Extent of the last axis.
pub(super) fn width(g: &Graph, x: Value) -> usize {
    g.shape(x).last().copied().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_decides_by_name() {
        let lora = "model.language_model.layers.3.mlp.up_proj.lora_B.weight";
        let base = "model.language_model.layers.3.mlp.up_proj.weight";
        let projector = "model.multi_modal_projector.linear_1.bias";
        let alignment = "alignment_projector.1.projector.4.weight";
        let residual = "residual_projector.linear.weight";
        let denoiser = "denoiser.net.t_embedder.mlp.0.weight";
        let names = [lora, base, projector, alignment, residual, denoiser];
        let trained = |policy: Trainable| names.map(|name| policy.contains(name));
        assert_eq!(trained(Trainable::NOTHING), [false; 6]);
        assert_eq!(trained(Trainable::PRETRAIN), [false, false, true, false, false, true]);
        assert_eq!(trained(Trainable::LORA), [true, false, true, true, true, true]);
        assert_eq!(trained(Trainable::FULL), [false, true, true, true, true, true]);
        let tower = "model.vision_tower.pre_layrnorm.weight";
        for name in
            [tower, "teacher.layernorm.weight", "vae.encoder.conv_in.bias", "rope.cos@4x2,theta=10000", POSITIONS]
        {
            assert!(![Trainable::LORA, Trainable::FULL].iter().any(|policy| policy.contains(name)), "{name}");
        }
        assert!(Trainable::FULL.contains("lm_head.weight"));
    }

    #[test]
    fn adapter_keys_are_those_of_the_files() {
        let lora = "model.language_model.layers.0.self_attn.q_proj.lora_A.weight";
        assert_eq!(adapter_key(lora), format!("base_model.model.{lora}"));
        let projector = "multi_modal_projector.linear_2.weight";
        assert_eq!(adapter_key(&format!("model.{projector}")), projector);
        assert_eq!(adapter_key("alignment_projector.projector.0.bias"), "alignment_projector.projector.0.bias");
    }
}
