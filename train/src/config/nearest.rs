//! "Did you mean": the known name that a mistyped one is closest to.

use strsim::{damerau_levenshtein, normalized_damerau_levenshtein};

use super::keys::{self, Key, SECTIONS};

/// The nearest of `names`, if one is near enough to be what was meant.
pub(crate) fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(f64, &str)> = None;
    for name in names {
        let likeness = likeness(word, name);
        if likeness >= 0.5 && best.is_none_or(|(other, _)| likeness > other) {
            best = Some((likeness, name));
        }
    }
    best.map(|(_, name)| name)
}

/// The key that was meant by `name` in `section`: one with a similar name there, or with the same name elsewhere.
pub(super) fn nearest_key(section: &str, name: &str) -> Option<&'static Key> {
    let mut best: Option<(f64, &'static Key)> = None;
    for key in keys::all() {
        // A slip of the finger is likelier than a name in the wrong section, and both at once are unlikely.
        let elsewhere = if key.section == section { 0.0 } else { 0.2 };
        let likeness = likeness(name, key.name) - elsewhere;
        if likeness >= 0.5 && best.is_none_or(|(other, _)| likeness > other) {
            best = Some((likeness, key));
        }
    }
    best.map(|(_, key)| key)
}

/// The section that was meant by `name`.
pub(super) fn nearest_section(name: &str) -> Option<&'static str> {
    nearest(name, SECTIONS.iter().map(|section| section.name))
}

/// From 0, nothing in common, to 1, equal but for case. A word that begins the other counts as a near miss.
fn likeness(word: &str, name: &str) -> f64 {
    let (word, name) = (word.to_lowercase().replace('-', "_"), name.to_lowercase());
    if word == name {
        1.0
    } else if word.len() >= 3 && damerau_levenshtein(&word, &name) == 1 {
        0.9
    } else if word.len() >= 3 && (name.contains(&word) || word.contains(&name) && name.len() >= 3) {
        0.6_f64.max(normalized_damerau_levenshtein(&word, &name))
    } else {
        normalized_damerau_levenshtein(&word, &name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_what_people_mistype() {
        let cases = [
            (("train", "bacth"), "train.batch"),
            (("train", "batch_size"), "train.batch"),
            (("train", "warmup"), "train.warmup_ratio"),
            (("train", "r"), "lora.r"),
            (("lora", "rank"), ""),
            (("vra", "layer"), "vra.layers"),
            (("vra", "projector-dim"), "vra.projector_dim"),
            (("data", "image"), "data.images"),
            (("", "template"), "data.template"),
            (("train", "zzzzqqqq"), ""),
        ];
        for ((section, name), expected) in cases {
            let found = nearest_key(section, name).map(Key::path).unwrap_or_default();
            assert_eq!(found, expected, "{section}.{name}");
        }
    }

    #[test]
    fn sections_and_words() {
        assert_eq!(nearest_section("trian"), Some("train"));
        assert_eq!(nearest_section("loar"), Some("lora"));
        assert_eq!(nearest_section("qqqqqqq"), None);
        assert_eq!(nearest("cosin", ["cosine", "relation"]), Some("cosine"));
        assert_eq!(nearest("", ["cosine"]), None);
    }
}
