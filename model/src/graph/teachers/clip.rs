//! CLIP's and SigLIP's vision towers as teachers.

use std::sync::Arc;

use viral_compiler::{Graph, Value};

use super::super::TEACHER;
use super::super::leaf::{Leaves, Trainable};
use super::super::pixels::PixelNorm;
use super::super::source::Interpolation;
use super::super::vision::{hidden_states, rows_from};
use super::{Kind, Teacher, TeacherInput};
use crate::config::{ConfigError, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, Section, VisionConfig, VisionFamily};
use crate::weights::NameMap;

/// Their files are not held without `config.json`.
pub(super) const KIND: Kind =
    Kind { model_types: &["clip", "clip_vision_model", "siglip", "siglip_vision_model"], read, recognise: None };

fn read(s: &Section<'_>) -> Result<Arc<dyn Teacher>, ConfigError> {
    let tower = match s.text("model_type")? {
        Some("clip") => tower(s, VisionFamily::Clip)?,
        Some("siglip") => tower(s, VisionFamily::Siglip)?,
        _ => VisionConfig::from_section(s)?,
    };
    Ok(Arc::new(Tower { tower }))
}

/// The vision part of a model of pictures and texts. A file may leave it, or its class, to the defaults.
fn tower(s: &Section<'_>, family: VisionFamily) -> Result<VisionConfig, ConfigError> {
    const KEY: &str = "vision_config";
    let section = s.section(KEY)?.ok_or_else(|| s.wrong(KEY, "the configuration of the vision tower"))?;
    VisionConfig::of_family(&section, family)
}

/// The features are hidden state -2 without the class token, as LLaVA's own.
#[derive(Debug)]
struct Tower {
    tower: VisionConfig,
}

impl Tower {
    fn blocks(&self) -> usize {
        self.tower.layers.saturating_sub(1)
    }
}

impl Teacher for Tower {
    fn width(&self) -> usize {
        self.tower.hidden_size
    }

    fn patch(&self) -> usize {
        self.tower.patch_size
    }

    fn own_grid(&self) -> usize {
        self.tower.grid()
    }

    fn input(&self) -> TeacherInput {
        TeacherInput::Normalised(match self.tower.family {
            VisionFamily::Clip => PixelNorm { mean: OPENAI_CLIP_MEAN, std: OPENAI_CLIP_STD },
            VisionFamily::Siglip => PixelNorm { mean: [0.5; 3], std: [0.5; 3] },
        })
    }

    fn names(&self) -> NameMap {
        NameMap::VisionTower
    }

    fn unused(&self) -> Vec<String> {
        let blocks = (self.blocks()..self.tower.layers).map(|layer| format!("encoder.layers.{layer}."));
        blocks.chain(["post_layernorm.".into(), "head.".into()]).collect()
    }

    fn features(&self, g: &mut Graph, pixels: Value, positions: Option<Interpolation>) -> Value {
        let leaves = Leaves::new(TEACHER, Trainable::NOTHING);
        let filter = positions.unwrap_or(Interpolation::Bicubic);
        let states = hidden_states(g, &self.tower, &leaves, &[self.blocks()], pixels, filter);
        rows_from(g, states[0], self.tower.class_tokens())
    }
}
