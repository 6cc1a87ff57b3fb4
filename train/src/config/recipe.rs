//! The rows of the paper's tables: each is a name and the keys in which it differs from the defaults. Adding one is one line
//! of [`Recipe::ALL`].
//!
//! `recipe.row` names a row. Its keys lie below everything else that sets a key, so a file that is meant for several rows
//! leaves them out.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::keys::{self, Config, Key};
use super::layers::{Assignment, Origin};
use super::setting::{Choice, Kind, Setting};

/// A row of a table.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// What `recipe.row` calls it.
    pub name: &'static str,
    /// Where the paper has it.
    pub row: &'static str,
    /// The keys that it sets, with their values as TOML. A path starts from `recipe.models`.
    pub keys: &'static [(&'static str, &'static str)],
}

/// A key of a row.
type Set = (&'static str, &'static str);

const fn row(name: &'static str, row: &'static str, keys: &'static [Set]) -> Recipe {
    Recipe { name, row, keys }
}

const BASELINE: Set = ("vra.enabled", "false");
const DINOV2: Set = ("vra.teacher", "\"dinov2-base\"");
const ROSS: Set = ("ross.enabled", "true");
const VAE: Set = ("ross.vae", "\"flux-vae\"");
const RESIDUAL: Set = ("residual.enabled", "true");

impl Recipe {
    /// Every row, in the paper's order. Layers are those of a language model of 32 layers.
    pub const ALL: &'static [Self] = &[
        row("table2/baseline", "Table 2: the language-model loss alone", &[BASELINE]),
        row("table2/vfm-dinov2", "Table 2, vision foundation models: DINOv2", &[DINOV2]),
        row("table2/vfm-clip", "Table 2, vision foundation models: CLIP", &[("vra.target", "\"encoder\"")]),
        row("table2/vfm-sam", "Table 2, vision foundation models: SAM", &[("vra.teacher", "\"sam-vit-base\"")]),
        row(
            "table2/vfm-dav2",
            "Table 2, vision foundation models: Depth Anything V2",
            &[("vra.teacher", "\"depth-anything-v2-base\"")],
        ),
        row("table2/vfm-radio", "Table 2, vision foundation models: RADIO", &[("vra.teacher", "\"radio-v2.5-b\"")]),
        row("table2/layer-04", "Table 2, target layers: 4", &[DINOV2, ("vra.layers", "[4]")]),
        row("table2/layer-08", "Table 2, target layers: 8", &[DINOV2, ("vra.layers", "[8]")]),
        row("table2/layer-12", "Table 2, target layers: 12", &[DINOV2, ("vra.layers", "[12]")]),
        row("table2/layer-16", "Table 2, target layers: 16", &[DINOV2]),
        row("table2/layer-20", "Table 2, target layers: 20", &[DINOV2, ("vra.layers", "[20]")]),
        row("table2/layer-24", "Table 2, target layers: 24", &[DINOV2, ("vra.layers", "[24]")]),
        row("table2/layer-28", "Table 2, target layers: 28", &[DINOV2, ("vra.layers", "[28]")]),
        row("table2/layer-32", "Table 2, target layers: 32, normalised", &[DINOV2, ("vra.layers", "[32]")]),
        row("table4/a-baseline", "Table 4 (a): the language-model loss alone", &[BASELINE]),
        row("table4/b-residual", "Table 4 (b): visual tokens added again at layer 16", &[BASELINE, RESIDUAL]),
        row("table4/c-encoder", "Table 4 (c): alignment with the encoder's features", &[("vra.target", "\"encoder\"")]),
        row(
            "table4/d-residual-before",
            "Table 4 (d): features before the projector added at layer 16",
            &[BASELINE, RESIDUAL, ("residual.source", "\"pre_projection\"")],
        ),
        row(
            "table4/e-post-projection",
            "Table 4 (e): alignment with the projected features",
            &[("vra.target", "\"post_projection\"")],
        ),
        row("table5/layers-16", "Table 5, target layers: 16", &[DINOV2]),
        row("table5/layers-15-17", "Table 5, target layers: 15 to 17", &[DINOV2, ("vra.layers", "[15, 16, 17]")]),
        row(
            "table5/layers-14-18",
            "Table 5, target layers: 14 to 18",
            &[DINOV2, ("vra.layers", "[14, 15, 16, 17, 18]")],
        ),
        row("table5/objective-cosine", "Table 5, objectives: cosine similarity", &[DINOV2]),
        row("table5/objective-relation", "Table 5, objectives: relation", &[DINOV2, ("vra.objective", "\"relation\"")]),
        row("table6/baseline", "Table 6: the language-model loss alone", &[BASELINE]),
        row("table6/ross", "Table 6: reconstruction from the last state (ROSS)", &[BASELINE, ROSS, VAE]),
        row(
            "table6/ross-middle",
            "Table 6: reconstruction from the output of layer 16",
            &[BASELINE, ROSS, VAE, ("ross.layer", "16")],
        ),
        row("table6/viral", "Table 6: VIRAL", &[DINOV2]),
    ];

    /// What the row sets, with `models` as the folder of vision models.
    pub(super) fn assignments(self, models: &Path) -> Vec<Assignment> {
        let set = |&(path, text): &Set| {
            let key = keys::all().find(|key| key.path() == path)?;
            let text = match key.kind {
                Kind::Path => toml::Value::from(&*models.join(text.trim_matches('"')).to_string_lossy()).to_string(),
                _ => text.to_owned(),
            };
            Some(Assignment { key, text, origin: Origin::Recipe(self.name) })
        };
        self.keys.iter().filter_map(set).collect()
    }
}

impl Config {
    /// The keys that the chosen row sets, and the value that it gives them.
    pub(super) fn of_recipe(&self) -> Vec<(&'static Key, Option<toml::Value>)> {
        let Some(recipe) = self.recipe.row else { return Vec::new() };
        let assignments = recipe.assignments(&self.recipe.models);
        let mut alone = Self::default();
        let given = assignments.into_iter().filter(|one| alone.set(one.key, &one.text).is_ok());
        let keys: Vec<&'static Key> = given.map(|one| one.key).collect();
        keys.into_iter().map(|key| (key, alone.get(key))).collect()
    }
}

/// The names, as other keys have their words.
const CHOICES: [Choice; Recipe::ALL.len()] = {
    let mut choices = [Choice { name: "", help: "" }; Recipe::ALL.len()];
    let mut index = 0;
    while index < choices.len() {
        choices[index] = Choice { name: Recipe::ALL[index].name, help: Recipe::ALL[index].row };
        index += 1;
    }
    choices
};

impl Setting for Recipe {
    const KIND: Kind = Kind::Choice(&CHOICES);
}

impl PartialEq for Recipe {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Serialize for Recipe {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for Recipe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = Self::ALL.iter().find(|recipe| recipe.name == name).copied();
        known.ok_or_else(|| serde::de::Error::custom(format!("there is no row {name}")))
    }
}
