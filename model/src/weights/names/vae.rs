//! Names of the diffusers library's autoencoders.

use super::Canonical;

/// Layers of an attention, under the library's older names.
const OLDER: [(&str, &str); 4] = [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")];

pub(super) fn canonical(stored: &str) -> Canonical {
    let renamed = stored.split_once(".attentions.0.").and_then(|(block, rest)| {
        let (layer, tensor) = rest.rsplit_once('.')?;
        let (_, newer) = OLDER.iter().find(|(older, _)| *older == layer)?;
        Some(format!("{block}.attentions.0.{newer}.{tensor}"))
    });
    Canonical::Whole(renamed.unwrap_or_else(|| stored.to_string()))
}
