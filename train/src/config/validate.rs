//! What a single key cannot check: ranges, combinations, and paths.

use std::collections::HashSet;
use std::hash::Hash;
use std::path::Path;

use super::keys::{self, Config, Key, RossConfig};
use super::setting::HeldOut;
use super::values::{Kept, Method, Objective, ResidualPositions, ResidualSource, Stage, VraTarget};
use crate::error::{Error, Kind, Result};

impl Config {
    /// Checks ranges and combinations. `origin` tells where a key was written, for messages.
    pub(super) fn check_values(&self, origin: &dyn Fn(&Key) -> String) -> Result<()> {
        for key in keys::all() {
            let Some(value) = self.get(key) else { continue };
            check_limit(key, &value, origin)?;
        }
        self.check_combinations(origin)
    }

    pub(super) fn check_combinations(&self, origin: &dyn Fn(&Key) -> String) -> Result<()> {
        let refuse = |path: &str, what: String, why: &str, hint: &str| Error {
            kind: Kind::Config,
            what,
            place: keys::all().find(|key| key.path() == path).map(origin).unwrap_or_default(),
            why: why.into(),
            hint: hint.into(),
        };
        if self.vra.enabled && self.residual.enabled {
            return Err(refuse(
                "residual.enabled",
                "`vra.enabled` and `residual.enabled` exclude each other".into(),
                "alignment and re-injection are alternatives",
                "set one of them to false",
            ));
        }
        let unique = "name each entry once";
        if self.vra.enabled && self.vra.layers.is_empty() {
            return Err(refuse(
                "vra.layers",
                "`vra.layers` is empty".into(),
                "alignment needs at least one layer",
                "name a layer, for example layers = [16], or set vra.enabled = false",
            ));
        }
        if let Some(layer) = repeated(&self.vra.layers) {
            return Err(refuse("vra.layers", format!("`vra.layers` names {layer} twice"), "layers form a set", unique));
        }
        if self.vra.enabled && !self.vra.use_projector && self.vra.objective != Objective::Relation {
            return Err(refuse(
                "vra.use_projector",
                "`vra.use_projector` = false needs `vra.objective` = \"relation\"".into(),
                "states and targets have different widths, which only self-similarities can be compared across",
                "set vra.use_projector = true, or vra.objective = \"relation\"",
            ));
        }
        if self.residual.enabled && self.residual.layers.is_empty() {
            return Err(refuse(
                "residual.layers",
                "`residual.layers` is empty".into(),
                "re-injection needs at least one layer",
                "name a layer, for example layers = [16], or set residual.enabled = false",
            ));
        }
        if let Some(layer) = repeated(&self.residual.layers) {
            let what = format!("`residual.layers` names {layer} twice");
            return Err(refuse("residual.layers", what, "layers form a set", unique));
        }
        let (source, positions) = (self.residual.source, self.residual.positions);
        if self.residual.enabled && source == ResidualSource::PreProjection && positions == ResidualPositions::All {
            return Err(refuse(
                "residual.positions",
                "`residual.positions` = \"all\" needs `residual.source` = \"post_projection\"".into(),
                "the vision encoder has no features for text tokens",
                "set residual.positions = \"visual\"",
            ));
        }
        let RossConfig { enabled, width, heads, .. } = self.ross;
        if enabled && (width % heads != 0 || width % 4 != 0) {
            return Err(refuse(
                "ross.width",
                format!("`ross.width` = {width} does not go with `ross.heads` = {heads}"),
                "the width is shared out among the heads, and among sines and cosines of two coordinates",
                "choose a width that is a multiple of the heads and of 4, such as 1024 with 16 heads",
            ));
        }
        if self.train.stage == Stage::Pretrain && (self.vra.enabled || self.residual.enabled) {
            let key = if self.vra.enabled { "vra.enabled" } else { "residual.enabled" };
            return Err(refuse(
                key,
                format!("`{key}` = true does not go with `train.stage` = \"pretrain\""),
                "the first stage trains the multi-modal projector on the language-model loss, and on reconstruction if wanted",
                &format!("set {key} = false, or train.stage = \"finetune\""),
            ));
        }
        if self.train.method == Method::Lora && self.train.stage == Stage::Finetune && self.lora.targets.is_empty() {
            return Err(refuse(
                "lora.targets",
                "`lora.targets` is empty".into(),
                "method \"lora\" trains the adapters of the linear maps named here",
                "name at least one, for example targets = [\"q_proj\", \"v_proj\"]",
            ));
        }
        if let Some(target) = repeated(&self.lora.targets) {
            return Err(refuse(
                "lora.targets",
                format!("`lora.targets` names {target} twice"),
                "a map has one adapter",
                unique,
            ));
        }
        if self.output.adapter == Kept::Best && self.data.validation.is_none() {
            return Err(refuse(
                "output.adapter",
                "`output.adapter` = \"best\" needs `data.validation`".into(),
                "the best state is the one with the lowest loss on samples that are not learnt from",
                "name a file or a share, for example data.validation = 0.02, or set output.adapter = \"last\"",
            ));
        }
        if self.train.epochs == 0 && self.train.steps == 0 {
            return Err(refuse(
                "train.epochs",
                "nothing to train".into(),
                "`train.epochs` and `train.steps` are both 0",
                "set one of them to 1 or more",
            ));
        }
        Ok(())
    }

    /// Whether a vision model of its own provides the targets.
    pub(crate) fn needs_teacher(&self) -> bool {
        self.vra.enabled && self.vra.target == VraTarget::Teacher
    }

    /// Checks that what the configuration points to is there. What the files hold is checked when they are read.
    pub fn check_paths(&self) -> Result<()> {
        const CONFIG: Option<&str> = Some("config.json");
        let llava = "config.json, tokenizer.json or another tokenizer, and weights of a LLaVA or language model";
        require_dir("model.path", &self.model.path, CONFIG, llava)?;
        if let Some(vision) = &self.model.vision {
            require_dir("model.vision", vision, CONFIG, "config.json and weights of a CLIP or SigLIP model")?;
        }
        if let Some(projector) = &self.model.projector {
            require_file("model.projector", projector, Kind::Model, "the weight file of a multi-modal projector")?;
        }
        if let Some(adapter) = &self.model.adapter {
            let expected = "adapter_config.json and adapter_model.safetensors as PEFT writes them";
            // Which of these files must be there is the reader's to say: a projector alone is an adapter too.
            require_dir("model.adapter", adapter, None, expected)?;
        }
        if self.needs_teacher() && !self.vra.teacher.is_file() {
            let expected = "config.json and weights of the vision model that provides the targets, or its weight file";
            // Without config.json the weights may tell what they are.
            require_dir("vra.teacher", &self.vra.teacher, None, expected)?;
        }
        if self.ross.enabled {
            let expected = "config.json and weights of the autoencoder whose latents are reconstructed";
            require_dir("ross.vae", &self.ross.vae, CONFIG, expected)?;
        }
        let records = "a LLaVA JSON array, or one JSON object a line";
        if let Some(HeldOut::File(file)) = &self.data.validation {
            require_file("data.validation", file, Kind::Data, records)?;
        }
        require_file("data.train", &self.data.train, Kind::Data, records)
    }
}

fn check_limit(key: &Key, value: &toml::Value, origin: &dyn Fn(&Key) -> String) -> Result<()> {
    let Some(number) = numbers(value).into_iter().find(|&number| !(key.limit.holds)(number)) else { return Ok(()) };
    let allowed = if key.limit.text.is_empty() { "a finite number" } else { key.limit.text };
    Err(Error {
        kind: Kind::Config,
        what: format!("`{}` cannot be {number}", key.path()),
        place: origin(key),
        why: format!("it must be {allowed}"),
        hint: format!("{}: {}", key.path(), key.help),
    })
}

fn numbers(value: &toml::Value) -> Vec<f64> {
    match value {
        toml::Value::Integer(number) => vec![*number as f64],
        toml::Value::Float(number) => vec![*number],
        toml::Value::Array(values) => values.iter().flat_map(numbers).collect(),
        toml::Value::String(_) | toml::Value::Boolean(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => vec![],
    }
}

fn repeated<T: Copy + Eq + Hash>(items: &[T]) -> Option<T> {
    let mut seen = HashSet::new();
    items.iter().copied().find(|&item| !seen.insert(item))
}

/// Requires a folder of a model, and in it `file` if one is named.
fn require_dir(key: &str, path: &Path, file: Option<&str>, expected: &str) -> Result<()> {
    let absent = file.filter(|file| !path.join(file).is_file());
    let why = match (path.is_dir(), absent) {
        (true, None) => return Ok(()),
        (true, Some(file)) => format!("the folder holds no {file}"),
        (false, _) if path.exists() => "this is a file, not a folder".into(),
        (false, _) => "there is no such folder".into(),
    };
    Err(missing(key, path, Kind::Model, why, expected))
}

fn require_file(key: &str, path: &Path, kind: Kind, expected: &str) -> Result<()> {
    let why = if path.is_file() {
        return Ok(());
    } else if path.is_dir() {
        "this is a folder, not a file"
    } else {
        "there is no such file"
    };
    Err(missing(key, path, kind, why.into(), expected))
}

fn missing(key: &str, path: &Path, kind: Kind, why: String, expected: &str) -> Error {
    Error {
        kind,
        what: format!("`{key}` leads nowhere"),
        place: path.display().to_string(),
        why: format!("{why}; expected {expected}"),
        hint: format!("correct `{key}` in the configuration (relative paths start from its folder)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_within_their_limits() {
        assert_eq!(Config::default().check_values(&|_| String::new()), Ok(()));
    }
}
