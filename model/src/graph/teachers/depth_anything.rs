//! The encoder of Depth Anything V2, a DINOv2 with weights of its own. Reference: L. Yang et al., 2024.

use std::sync::Arc;

use serde_json::json;
use viral_compiler::{Graph, Value};

use super::super::pixels::PixelNorm;
use super::super::source::Interpolation;
use super::{Kind, Teacher, TeacherInput, dinov2};
use crate::config::{ConfigError, Dinov2Config, Section};
use crate::weights::NameMap;

pub(super) const KIND: Kind = Kind {
    model_types: &["depth_anything"],
    read,
    // What is a DINOv2 behind these names was none without them.
    recognise: Some((NameMap::DepthAnything, |tensors| {
        let backbone = dinov2::recognise(tensors)?;
        Some(backbone.map(|backbone| json!({"model_type": "depth_anything", "backbone_config": backbone})))
    })),
};

fn read(s: &Section<'_>) -> Result<Arc<dyn Teacher>, ConfigError> {
    const KEY: &str = "backbone_config";
    let backbone = s.section(KEY)?.ok_or_else(|| s.wrong(KEY, "the configuration of a DINOv2"))?;
    Ok(Arc::new(DepthAnything { backbone: Dinov2Config::from_section(&backbone)? }))
}

/// The features are the last block's, normalised; the depth head, which reads others, is left out.
#[derive(Debug)]
struct DepthAnything {
    backbone: Dinov2Config,
}

impl Teacher for DepthAnything {
    fn width(&self) -> usize {
        self.backbone.hidden_size
    }

    fn patch(&self) -> usize {
        self.backbone.patch_size
    }

    fn own_grid(&self) -> usize {
        self.backbone.grid()
    }

    fn input(&self) -> TeacherInput {
        TeacherInput::Normalised(PixelNorm::IMAGENET)
    }

    fn names(&self) -> NameMap {
        NameMap::DepthAnything
    }

    fn unused(&self) -> Vec<String> {
        self.backbone.unused()
    }

    /// The release resamples its position table as DINOv2's own code does.
    fn features(&self, g: &mut Graph, pixels: Value, positions: Option<Interpolation>) -> Value {
        dinov2::features(g, &self.backbone, pixels, positions.unwrap_or(Interpolation::OffsetBicubic))
    }
}
