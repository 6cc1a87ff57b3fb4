//! Names of RADIO models.

use super::Canonical;

pub(super) fn canonical(stored: &str) -> Canonical {
    let name = stored.strip_prefix("radio_model.").unwrap_or(stored);
    // The trunk is `model` in library files and `base_model` in the release.
    let name = ["base_model.", "model."].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    // A list of teachers, which says which class tokens make a summary.
    if name == "summary_idxs" {
        return Canonical::Ignored;
    }
    Canonical::Whole(name.to_string())
}
