//! First values of trained tensors: from the starting adapter, from the model, or random.
//!
//! A random value depends on the seed, the tensor's name and its shape alone.

use super::bundle::Bundle;
use super::layout::Entry;
use crate::error::Result;
use crate::random::Random;

/// Deviation of the alignment projector's weights: what the reference's loader gives modules that a checkpoint lacks.
const ALIGNMENT_STD: f64 = 0.02;

/// The first value of a trained tensor, row-major.
pub(crate) fn value(bundle: &Bundle, entry: &Entry) -> Result<Vec<f32>> {
    if let Some(values) = bundle.adapter_tensor(&entry.name) {
        return Ok(values);
    }
    let len = entry.ty.len();
    let random = || Random::new(bundle.config.train.seed, &entry.name);
    Ok(match Part::of(&entry.name) {
        // Kaiming-uniform with a = sqrt(5), as PEFT draws it
        Part::LoraA => random().uniform(len, 1.0 / (entry.ty.shape[1] as f64).sqrt()),
        Part::LoraB | Part::AlignmentBias => vec![0.0; len],
        Part::AlignmentWeight => random().normal(len, ALIGNMENT_STD),
        Part::Model => bundle.model_tensor(&entry.name)?,
    })
}

enum Part {
    LoraA,
    LoraB,
    AlignmentWeight,
    AlignmentBias,
    Model,
}

impl Part {
    fn of(name: &str) -> Self {
        match name {
            _ if name.ends_with(".lora_A.weight") => Self::LoraA,
            _ if name.ends_with(".lora_B.weight") => Self::LoraB,
            _ if name.starts_with("alignment_projector.") && name.ends_with(".bias") => Self::AlignmentBias,
            _ if name.starts_with("alignment_projector.") => Self::AlignmentWeight,
            _ => Self::Model,
        }
    }
}
