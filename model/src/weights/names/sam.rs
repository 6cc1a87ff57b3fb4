//! Names of SAM's image encoder.

use super::{Canonical, rename};

/// Parts of SAM behind the image encoder.
const UNUSED: [&str; 3] = ["prompt_encoder.", "mask_decoder.", "shared_image_embedding."];

pub(super) fn canonical(stored: &str) -> Canonical {
    if UNUSED.iter().any(|part| stored.starts_with(part)) {
        return Canonical::Ignored;
    }
    let prefixes = ["image_encoder.", "vision_encoder."];
    let name = prefixes.iter().find_map(|prefix| stored.strip_prefix(prefix)).unwrap_or(stored);
    if let Some((block, rest)) = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) {
        return Canonical::Whole(format!("layers.{block}.{}", rename(rest, &BLOCK)));
    }
    Canonical::Whole(rename(name, &TOP))
}

/// Names of the release inside a block.
const BLOCK: [(&str, &str); 2] = [("norm1.", "layer_norm1."), ("norm2.", "layer_norm2.")];

/// Names of the release outside the blocks.
const TOP: [(&str, &str); 5] = [
    ("patch_embed.proj.", "patch_embed.projection."),
    ("neck.0.", "neck.conv1."),
    ("neck.1.", "neck.layer_norm1."),
    ("neck.2.", "neck.conv2."),
    ("neck.3.", "neck.layer_norm2."),
];
