//! Names of RADIO models.

use super::{Canonical, rename};

/// Parts of a release beside the trunk: heads that imitate its own teachers, and a list of these.
const UNUSED: [&str; 7] = [
    "_heads.",
    "_feature_projections.",
    "_intermediate_feature_normalizer.",
    "inter_feature_normalizer.",
    "adaptors.",
    "head.",
    "summary_idxs",
];

pub(super) fn canonical(stored: &str) -> Canonical {
    let name = stored.strip_prefix("radio_model.").unwrap_or(stored);
    // The trunk is `model` in library files and `base_model` in the release; that of the giant has a wrapper around it.
    let name = ["base_model.", "model."].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    let name = name.strip_prefix("inner.").unwrap_or(name);
    if UNUSED.iter().any(|part| name.starts_with(part)) {
        return Canonical::Ignored;
    }
    if let Some((block, rest)) = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) {
        return Canonical::Whole(format!("blocks.{block}.{}", rename(rest, &BLOCK)));
    }
    Canonical::Whole(rename(name, &TOP))
}

/// Names of the giant inside a block.
const BLOCK: [(&str, &str); 4] = [
    ("ls1.gamma", "layer_scale1.lambda1"),
    ("ls2.gamma", "layer_scale2.lambda1"),
    ("mlp.w12.", "mlp.weights_in."),
    ("mlp.w3.", "mlp.weights_out."),
];

const TOP: [(&str, &str); 1] = [("_feature_normalizer.", "feature_normalizer.")];
