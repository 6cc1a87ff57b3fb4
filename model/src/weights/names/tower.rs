//! Names of CLIP and SigLIP vision towers.

use super::Canonical;

/// Parts of a model of pictures and texts that are no part of the tower.
const UNUSED: [&str; 6] =
    ["text_model.", "text_projection.", "visual_projection.", "vision_projection.", "logit_scale", "logit_bias"];

pub(super) fn canonical(stored: &str) -> Canonical {
    if UNUSED.iter().any(|part| stored.starts_with(part)) {
        return Canonical::Ignored;
    }
    Canonical::Whole(stored.strip_prefix("vision_model.").unwrap_or(stored).to_string())
}
