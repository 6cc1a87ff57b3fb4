//! Which linear maps an adapter's `target_modules` means.

use fancy_regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::config::{ConfigError, Section, TextConfig};
use crate::graph::LinearMap;

/// Steps that a pattern may backtrack per name; honest patterns need a few hundred.
const BACKTRACK_LIMIT: usize = 100_000;

/// A selection of modules: names that a path ends with, or a pattern for the whole path.
enum Selection {
    All,
    Names(Vec<String>),
    Pattern(Regex),
}

/// The maps that `target_modules` selects and `exclude_modules` leaves, in the order of a forward pass. Only the
/// language model is looked at: module names such as `q_proj` occur in vision towers as well, but adapters there would
/// bring keys that match nothing here.
pub(super) fn read(s: &Section<'_>, text: &TextConfig) -> Result<Vec<LinearMap>, ConfigError> {
    const KEY: &str = "target_modules";
    let targets = Selection::read(s, KEY)?.ok_or_else(|| s.wrong(KEY, "names, a pattern or \"all-linear\""))?;
    let excluded = Selection::read(s, "exclude_modules")?;
    let mut maps = Vec::new();
    for map in LinearMap::ALL {
        let mut layers = 0;
        for layer in 0..text.layers {
            let paths = paths(layer, map);
            let matches = |selection: &Selection, key| {
                let mut found = false;
                for path in &paths {
                    found |= selection.matches(path).ok_or_else(|| s.wrong(key, "a pattern of bounded effort"))?;
                }
                Ok::<bool, ConfigError>(found)
            };
            let left_out = match &excluded {
                Some(excluded) => matches(excluded, "exclude_modules")?,
                None => false,
            };
            layers += usize::from(!left_out && matches(&targets, KEY)?);
        }
        match layers {
            0 => {}
            all if all == text.layers => maps.push(map),
            some => {
                let problem = format!("`{KEY}` selects {} in {some} of {} layers", map.name(), text.layers);
                return Err(s.inconsistent(format!("{problem}; adapters have to be in all layers or in none")));
            }
        }
    }
    if maps.is_empty() {
        let names = LinearMap::ALL.map(LinearMap::name).join(", ");
        return Err(s.unsupported(KEY, &format!("linear layers of the language model: {names}")));
    }
    Ok(maps)
}

/// The pattern that is written: it selects these maps in the language model and nothing else, under the module paths
/// of current and of older library versions.
pub(super) fn pattern(maps: &[LinearMap]) -> String {
    let names: Vec<&str> = maps.iter().map(|map| map.name()).collect();
    let root = r"(model\.language_model|language_model\.model)";
    format!(r"{root}\.layers\.\d+\.(self_attn|mlp)\.({})", names.join("|"))
}

/// A linear map's canonical module path.
pub(super) fn path(layer: usize, map: LinearMap) -> String {
    path_under("model.language_model", layer, map)
}

/// A linear map's module path in each naming dialect.
fn paths(layer: usize, map: LinearMap) -> [String; 3] {
    ["model.language_model", "language_model.model", "model"].map(|root| path_under(root, layer, map))
}

fn path_under(root: &str, layer: usize, map: LinearMap) -> String {
    let module = match map {
        LinearMap::Q | LinearMap::K | LinearMap::V | LinearMap::O => "self_attn",
        LinearMap::Gate | LinearMap::Up | LinearMap::Down => "mlp",
    };
    format!("{root}.layers.{layer}.{module}.{}", map.name())
}

impl Selection {
    fn read(s: &Section<'_>, key: &str) -> Result<Option<Self>, ConfigError> {
        let expected = "names, a pattern or \"all-linear\"";
        match s.value(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("all-linear") => Ok(Some(Self::All)),
            Some(Value::String(text)) => {
                let pattern = format!(r"\A(?:{text})\z");
                let regex = RegexBuilder::new(&pattern).backtrack_limit(BACKTRACK_LIMIT).build();
                regex.map(|regex| Some(Self::Pattern(regex))).map_err(|_| s.wrong(key, "a valid pattern"))
            }
            Some(Value::Array(list)) => {
                let names: Option<Vec<String>> = list.iter().map(|name| name.as_str().map(str::to_string)).collect();
                names.map(|names| Some(Self::Names(names))).ok_or_else(|| s.wrong(key, expected))
            }
            Some(_) => Err(s.wrong(key, expected)),
        }
    }

    /// `None` if the pattern takes too long.
    fn matches(&self, path: &str) -> Option<bool> {
        match self {
            Self::All => Some(true),
            Self::Names(names) => Some(names.iter().any(|name| {
                path.strip_suffix(name.as_str()).is_some_and(|head| head.is_empty() || head.ends_with('.'))
            })),
            Self::Pattern(regex) => regex.is_match(path).ok(),
        }
    }
}
