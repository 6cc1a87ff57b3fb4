//! Tensor names: every known dialect is mapped to one canonical name.
//!
//! LLaVA's canonical names are those of the library's current module tree, without the optional `vision_model` level:
//! `model.language_model.layers.N.…`, `lm_head.weight`, `model.vision_tower.…`, `model.multi_modal_projector.…`.
//! A vision network's are those of its library files on the hub without the prefix of the model around it:
//!
//! | network | canonical names |
//! | --- | --- |
//! | CLIP, SigLIP | `embeddings.…`, `pre_layrnorm.…`, `encoder.layers.N.…`, `post_layernorm.…` |
//! | DINOv2, Depth Anything V2 | `embeddings.…`, `encoder.layer.N.…`, `layernorm.…` |
//! | SAM | `pos_embed`, `patch_embed.projection.…`, `layers.N.…`, `neck.…` |
//! | RADIO | `patch_generator.…`, `blocks.N.…`, `norm.…`, `input_conditioner.…` |
//! | autoencoder | `encoder.…`, `quant_conv.…` |

mod dinov2;
mod llava;
mod radio;
mod sam;
mod tower;
mod vae;

pub(crate) use llava::llava_name;

/// Which renaming rule a checkpoint's names go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameMap {
    /// LLaVA: original names, older and newer library names.
    Llava,
    /// DINOv2: names of the research release, library names, and the library's newer in-memory names.
    Dinov2,
    /// The encoder of Depth Anything V2: DINOv2's names behind `pretrained.` (release) or `backbone.` (library). The
    /// depth head is left out.
    DepthAnything,
    /// The vision tower of a CLIP or SigLIP model, whole or alone. The text tower is left out.
    VisionTower,
    /// The image encoder of SAM: names of the release or of the library. Prompt encoder and mask decoder are left out.
    Sam,
    /// RADIO: names of the release's archive or of the library files.
    Radio,
    /// The variational autoencoder: names of the diffusers library, older ones included.
    Vae,
    /// Names stay as they are stored.
    Verbatim,
}

/// Where a stored tensor goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Canonical {
    /// A derived table that is recomputed, never loaded.
    Ignored,
    /// One tensor under this name.
    Whole(String),
    /// Three tensors, stored one after the other along the first axis.
    RowThirds([String; 3]),
}

impl NameMap {
    /// The canonical names of a stored tensor: one as a rule, none for tables that are recomputed (`inv_freq`,
    /// `position_ids`), three for a fused query-key-value matrix.
    pub fn canonical(self, stored: &str) -> Vec<String> {
        match self.map(stored) {
            Canonical::Ignored => Vec::new(),
            Canonical::Whole(name) => vec![name],
            Canonical::RowThirds(names) => names.to_vec(),
        }
    }

    pub(super) fn map(self, stored: &str) -> Canonical {
        if matches!(self, NameMap::Verbatim) {
            return Canonical::Whole(stored.to_string());
        }
        if ["inv_freq", "position_ids"].iter().any(|leaf| stored.rsplit('.').next() == Some(leaf)) {
            return Canonical::Ignored;
        }
        match self {
            NameMap::Llava => Canonical::Whole(llava_name(stored)),
            NameMap::Dinov2 => dinov2::canonical(stored),
            NameMap::DepthAnything => dinov2::depth_anything(stored),
            NameMap::VisionTower => tower::canonical(stored),
            NameMap::Sam => sam::canonical(stored),
            NameMap::Radio => radio::canonical(stored),
            NameMap::Vae => vae::canonical(stored),
            NameMap::Verbatim => Canonical::Whole(stored.to_string()),
        }
    }
}

/// Replaces the one part that a rule matches: at the start of the name, or, for rules that begin with a dot, after the
/// layer number.
fn rename(name: &str, rules: &[(&str, &str)]) -> String {
    for (from, to) in rules {
        let at = if from.starts_with('.') { name.find('.') } else { Some(0) };
        if let Some((head, tail)) = at.and_then(|at| name.split_at_checked(at))
            && let Some(rest) = tail.strip_prefix(from)
        {
            return format!("{head}{to}{rest}");
        }
    }
    name.to_string()
}
