//! Contents of leaves. First values of trained tensors come from the starting adapter, from the model, or are random.
//!
//! A random value depends on the seed, the tensor's name and its shape alone.

use viral_compiler::types::TensorType;
use viral_model::graph::{LeafSource, Origin, denoiser};

use super::bundle::Bundle;
use crate::error::Result;
use crate::random::Random;

/// Deviation of new modules' weights: what the reference's loader gives modules that a checkpoint lacks.
const MODULE_STD: f64 = 0.02;

/// Takes the next elements of a tensor.
pub(crate) type Take<'t> = &'t mut dyn FnMut(&[f32]) -> Result<()>;

/// Where a session's tensors get their first content from.
pub(crate) trait Contents: Sync {
    /// Gives the content of a frozen leaf, row-major and in pieces.
    fn frozen(&self, name: &str, ty: &TensorType, take: Take<'_>) -> Result<()>;

    /// The first value of a trained tensor, row-major.
    fn value(&self, name: &str, ty: &TensorType) -> Result<Vec<f32>>;

    /// What all of a frozen leaf consists of, again and again, if it is no more than that.
    fn repeated(&self, _name: &str, _ty: &TensorType) -> Option<Vec<f32>> {
        None
    }
}

impl Contents for Bundle {
    fn frozen(&self, name: &str, ty: &TensorType, take: Take<'_>) -> Result<()> {
        frozen(self, name, ty, take)
    }

    fn value(&self, name: &str, ty: &TensorType) -> Result<Vec<f32>> {
        value(self, name, ty)
    }
}

/// Small numbers without meaning, to measure speed with where there are no files: the same block again and again.
pub(crate) struct MadeUp;

/// Elements of the block of [`MadeUp`]; whole blocks of every storage type.
const MADE_UP: usize = 1 << 16;

impl Contents for MadeUp {
    fn frozen(&self, name: &str, ty: &TensorType, take: Take<'_>) -> Result<()> {
        let block = self.repeated(name, ty).unwrap_or_default();
        let mut left = ty.len();
        while left > 0 {
            let piece = &block[..block.len().min(left)];
            take(piece)?;
            left -= piece.len();
        }
        Ok(())
    }

    fn value(&self, name: &str, ty: &TensorType) -> Result<Vec<f32>> {
        whole(self, name, ty)
    }

    fn repeated(&self, name: &str, ty: &TensorType) -> Option<Vec<f32>> {
        if ty.rank() == 1 && name.contains("norm") && name.ends_with(".weight") {
            // Near zero it would leave nothing of what it scales.
            return Some(vec![1.0; MADE_UP]);
        }
        let mut block = Random::new(0, "made up").uniform(MADE_UP, 0.02);
        // Some rows of a tensor are what the whole has there.
        if let LeafSource::Rows { start, count, .. } = LeafSource::of(name) {
            block.rotate_left(start * (ty.len() / count.max(1)) % MADE_UP);
        }
        Some(block)
    }
}

/// All of the content of a frozen leaf.
pub(crate) fn whole(contents: &dyn Contents, name: &str, ty: &TensorType) -> Result<Vec<f32>> {
    let mut values = Vec::with_capacity(ty.len());
    contents.frozen(name, ty, &mut |piece| {
        values.extend(piece);
        Ok(())
    })?;
    Ok(values)
}

/// The content of a frozen leaf, row-major: from a file, computed, or, for a part that a run keeps as it was initialised,
/// its first value.
fn frozen(bundle: &Bundle, name: &str, ty: &TensorType, take: Take<'_>) -> Result<()> {
    match LeafSource::of(name) {
        LeafSource::Tensor { origin: Origin::Adapter, .. } => take(&value(bundle, name, ty)?),
        LeafSource::Tensor { origin, name } => bundle.stored(origin, &name, 0..ty.len(), take),
        LeafSource::Rows { origin, name, start, count } => {
            let width = ty.len() / count.max(1);
            bundle.stored(origin, &name, start * width..(start + count) * width, take)
        }
        source => take(&bundle.content(&source)?),
    }
}

/// The first value of a trained tensor, row-major.
pub(crate) fn value(bundle: &Bundle, name: &str, ty: &TensorType) -> Result<Vec<f32>> {
    if let Some(values) = bundle.adapter_tensor(name) {
        return Ok(values);
    }
    let random = || Random::new(bundle.config.train.seed, name);
    Ok(match Part::of(name) {
        // Kaiming-uniform with a = sqrt(5), as PEFT draws it
        Part::LoraA => random().uniform(ty.len(), 1.0 / (ty.shape[1] as f64).sqrt()),
        Part::Zero => vec![0.0; ty.len()],
        Part::Normal => random().normal(ty.len(), MODULE_STD),
        // Xavier-uniform; what a convolution has behind its channels is one point
        Part::Xavier => random().uniform(ty.len(), (6.0 / (ty.shape[0] + ty.shape[1]) as f64).sqrt()),
        Part::Positions => denoiser::positions(ty.shape[1].isqrt(), ty.shape[2]),
        Part::Model => bundle.content(&LeafSource::of(name))?,
    })
}

enum Part {
    LoraA,
    Zero,
    Normal,
    Xavier,
    Positions,
    Model,
}

impl Part {
    fn of(name: &str) -> Self {
        const MODULES: [&str; 3] = ["alignment_projector.", "residual_projector.", "denoiser."];
        let is_module = MODULES.iter().any(|prefix| name.starts_with(prefix));
        match name.strip_prefix("denoiser.net.") {
            _ if name.ends_with(".lora_A.weight") => Self::LoraA,
            _ if name.ends_with(".lora_B.weight") || is_module && name.ends_with(".bias") => Self::Zero,
            Some("pos_embed") => Self::Positions,
            // Each block begins as the identity, and what comes out as zero.
            Some(part) if part.contains("adaLN_modulation") || part.starts_with("final_layer") => Self::Zero,
            Some(part) if !["t_embedder", "z_embedder"].iter().any(|norm| part.starts_with(norm)) => Self::Xavier,
            _ if is_module => Self::Normal,
            _ => Self::Model,
        }
    }
}
