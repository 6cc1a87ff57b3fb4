//! Teachers whose files come without a usable `config.json`, as research releases do: what their tensors say about them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value as Json};

use crate::config::{ConfigError, Document};
use crate::weights::{Checkpoint, NameMap};

use super::ALL;

/// The configuration that tensors of these names and shapes have: nothing if they are another teacher's, an error if they
/// leave something open.
pub(super) type Recognise = fn(&Tensors) -> Option<Result<Json, String>>;

/// Shapes of stored tensors by canonical name.
#[derive(Debug, Default)]
pub(super) struct Tensors(BTreeMap<String, Vec<usize>>);

/// The configuration of the teacher whose weights are at `path`, as its `config.json` would say it.
pub(super) fn config(path: &Path) -> Result<Document, ConfigError> {
    let unknown = |problem: String| ConfigError::Inconsistent {
        path: path.to_path_buf(),
        problem: format!("there is no config.json with a `model_type`, and {problem}"),
    };
    let checkpoint = Checkpoint::open(path, NameMap::Verbatim).map_err(|error| unknown(error.to_string()))?;
    let stored: Vec<(&str, &[usize])> =
        checkpoint.names().filter_map(|name| Some((name, checkpoint.shape(name)?))).collect();
    let recognised = ALL.iter().find_map(|kind| {
        let (names, recognise) = kind.recognise?;
        recognise(&Tensors::renamed(names, &stored))
    });
    match recognised {
        Some(Ok(config)) => Document::parse(path, config.to_string().as_bytes()),
        Some(Err(problem)) => Err(unknown(format!("its tensors leave open what it is: {problem}"))),
        None => Err(unknown("its tensors are none of a teacher that is known without".into())),
    }
}

impl Tensors {
    /// Tensors of these stored names.
    fn renamed(names: NameMap, stored: &[(&str, &[usize])]) -> Self {
        let mut tensors = BTreeMap::new();
        for (stored, shape) in stored {
            let canonical = names.canonical(stored);
            let mut shape = shape.to_vec();
            if let (Some(rows), parts @ 2..) = (shape.first_mut(), canonical.len()) {
                *rows /= parts;
            }
            tensors.extend(canonical.into_iter().map(|name| (name, shape.clone())));
        }
        Self(tensors)
    }

    /// Width of the feed-forward network whose tensors begin with `prefix`, as `mlp_ratio` counts it, and whether it is gated:
    /// such a one has two thirds of that.
    pub(super) fn feed_forward(&self, prefix: &str) -> Result<(f64, bool), String> {
        match self.extent(&format!("{prefix}weights_in.weight"), 0) {
            Ok(both) => Ok((both as f64 * 0.75, true)),
            Err(_) => Ok((self.extent(&format!("{prefix}fc1.weight"), 0)? as f64, false)),
        }
    }

    /// Whether there is a tensor of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// An extent of a tensor.
    pub(super) fn extent(&self, name: &str, axis: usize) -> Result<usize, String> {
        let shape = self.0.get(name).ok_or_else(|| format!("there is no `{name}`"))?;
        let extent = shape.get(axis).copied().filter(|&extent| extent > 0);
        extent.ok_or_else(|| format!("`{name}` has the shape {shape:?}"))
    }

    /// How many numbered parts there are below a prefix that ends with a dot.
    pub(super) fn layers(&self, prefix: &str) -> usize {
        let number = |name: &String| name.strip_prefix(prefix)?.split('.').next()?.parse::<usize>().ok();
        self.0.keys().filter_map(number).max().map_or(0, |last| last + 1)
    }
}

/// The side of a square of this many points.
pub(super) fn side(name: &str, points: usize) -> Result<usize, String> {
    let side = points.isqrt();
    if side > 0 && side * side == points {
        Ok(side)
    } else {
        Err(format!("the {points} rows of `{name}` are no square"))
    }
}

/// Attention heads, which no shape tells, of the published models by their width.
pub(super) fn heads(published: &[(usize, usize)], width: usize) -> Result<usize, String> {
    let known = published.iter().find(|(other, _)| *other == width).map(|(_, heads)| *heads);
    known.ok_or_else(|| {
        let widths: Vec<String> = published.iter().map(|(width, _)| width.to_string()).collect();
        let widths = widths.join(", ");
        format!("published models have a width of {widths}, this one of {width}; give `num_attention_heads` in a config.json")
    })
}

/// An object of keys and values, without those that are null.
pub(super) fn object(value: Json) -> Json {
    match value {
        Json::Object(map) => Json::Object(map.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>()),
        other => other,
    }
}
