//! The original layout: a flat language-model configuration with `mm_…` keys, as LLaVA and VIRAL write it. A language
//! model without such keys is the same with the original's defaults.
//!
//! The vision tower is named, not contained, so it comes from a directory of its own.

use serde_json::json;

use super::llava::vision_layers;
use super::{
    Activation, ConfigError, FeatureSelect, LlavaConfig, Section, TextConfig, TextFamily, VisionConfig, VisionFamily,
};

/// The tower that every published LLaVA-1.5 names, whose configuration is therefore known.
const USUAL_TOWER: &str = "clip-vit-large-patch14-336";

/// The language model's family, if the file is of this layout.
pub(super) fn family(s: &Section<'_>) -> Result<Option<TextFamily>, ConfigError> {
    Ok(match s.text("model_type")? {
        Some("llava_llama" | "llama") => Some(TextFamily::Llama),
        Some("llava_qwen2" | "llava_qwen" | "qwen2") => Some(TextFamily::Qwen2),
        // The first releases called themselves as the library's model does.
        Some("llava") if s.value("mm_vision_tower").is_some() => Some(TextFamily::Llama),
        _ => None,
    })
}

/// Reads the root of a `config.json`; `tower` is the configuration of the vision tower, if its directory is known.
pub(super) fn read(
    s: &Section<'_>,
    family: TextFamily,
    tower: Option<&Section<'_>>,
) -> Result<LlavaConfig, ConfigError> {
    for key in ["mm_use_im_start_end", "mm_use_im_patch_token", "mm_vision_resampler"] {
        s.refuse_unless(key, json!(false))?;
    }
    s.refuse_unless("mm_projector_type", json!("mlp2x_gelu"))?;
    s.refuse_unless("mm_patch_merge_type", json!("flat"))?;
    let vision = match (tower, s.text("mm_vision_tower")?) {
        (Some(section), _) => VisionConfig::from_section(section)?,
        (None, Some(name)) if name.ends_with(USUAL_TOWER) => VisionConfig::clip_large_336(),
        (None, Some(_)) => {
            return Err(s.unsupported("mm_vision_tower", "the tower's directory as model.vision of the run"));
        }
        (None, None) => {
            let problem = "it is a language model without a vision tower; name the tower's directory as model.vision";
            return Err(s.inconsistent(problem));
        }
    };
    if s.size("mm_hidden_size", vision.hidden_size)? != vision.hidden_size {
        let width = vision.hidden_size;
        return Err(s.wrong("mm_hidden_size", &format!("{width}, the width of the vision tower")));
    }
    let feature_select = match s.text("mm_vision_select_feature")? {
        // Without a class token, all tokens are patches.
        None | Some("patch") if vision.family == VisionFamily::Siglip => FeatureSelect::Full,
        None | Some("patch") => FeatureSelect::Patches,
        Some("cls_patch") => FeatureSelect::Full,
        Some(_) => return Err(s.unsupported("mm_vision_select_feature", "patch, cls_patch")),
    };
    let config = LlavaConfig {
        text: TextConfig::of_family(family, s)?,
        vision_layers: vision_layers(s, "mm_vision_select_layer", vision.layers)?,
        image_seq_length: vision.patches(),
        tiling: None,
        vision,
        // The original code marks pictures by a number outside the vocabulary.
        image_token_index: crate::text::IMAGE,
        feature_select,
        projector_hidden_act: Activation::Gelu,
        projector_bias: true,
    };
    Ok(config)
}
