//! `adapter_config.json`.

use std::path::Path;

use serde_json::{Value, json};

use super::targets;
use crate::config::{ConfigError, Document, Section, TextConfig};
use crate::graph::LinearMap;

/// Shape of a LoRA adapter: `y = W x + alpha / rank · B (A (dropout(x)))` in every decoder layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rows of A, columns of B.
    pub rank: usize,
    /// Scale before division by the rank.
    pub alpha: f64,
    /// Probability with which an element of the adapter's input is dropped in training.
    pub dropout: f64,
    /// Adapted linear maps, in the order of a forward pass.
    pub targets: Vec<LinearMap>,
    /// The model that the adapter belongs to, as noted in the file.
    pub base_model: Option<String>,
}

impl LoraConfig {
    /// Reads `adapter_config.json` of an adapter directory.
    ///
    /// # Errors
    /// The file is missing or no JSON, a value is wrong, or it asks for a variant that is not implemented.
    pub fn from_dir(dir: &Path, text: &TextConfig) -> Result<Self, ConfigError> {
        let document = Document::read(&dir.join("adapter_config.json"))?;
        Self::from_section(&document.root(), text)
    }

    /// Reads the text of an `adapter_config.json`; `path` only appears in messages.
    ///
    /// # Errors
    /// As [`Self::from_dir`].
    pub fn from_json(path: &Path, json: &[u8], text: &TextConfig) -> Result<Self, ConfigError> {
        let document = Document::parse(path, json)?;
        Self::from_section(&document.root(), text)
    }

    fn from_section(s: &Section<'_>, text: &TextConfig) -> Result<Self, ConfigError> {
        refuse_variants(s)?;
        let dropout = s.number("lora_dropout", 0.0)?;
        if !(0.0..1.0).contains(&dropout) {
            return Err(s.wrong("lora_dropout", "a probability below 1"));
        }
        Ok(Self {
            rank: s.size("r", 8)?,
            alpha: s.number("lora_alpha", 8.0)?,
            dropout,
            targets: targets::read(s, text)?,
            base_model: s.text("base_model_name_or_path")?.map(str::to_string),
        })
    }

    /// The file's text, with the keys that every PEFT version since 0.10 knows.
    pub(super) fn to_json(&self) -> String {
        // PEFT declares alpha as an integer; readers of either kind take one.
        let alpha = if self.alpha.fract() == 0.0 && self.alpha.abs() < 1e15 {
            json!(self.alpha as i64)
        } else {
            json!(self.alpha)
        };
        let config = json!({
            "alpha_pattern": {},
            "auto_mapping": null,
            "base_model_name_or_path": self.base_model,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layer_replication": null,
            "layers_pattern": null,
            "layers_to_transform": null,
            "loftq_config": {},
            "lora_alpha": alpha,
            "lora_dropout": self.dropout,
            "megatron_config": null,
            "megatron_core": "megatron.core",
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": self.rank,
            "rank_pattern": {},
            "revision": null,
            "target_modules": targets::pattern(&self.targets),
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": false,
        });
        format!("{config:#}")
    }
}

/// Refuses every setting that would change the arithmetic or add tensors. Unknown keys are ignored: each PEFT version
/// brings new ones, and tensors that nobody expects are found by their keys.
fn refuse_variants(s: &Section<'_>) -> Result<(), ConfigError> {
    s.refuse_unless("peft_type", json!("LORA"))?;
    s.refuse_unless("bias", json!("none"))?;
    let off = [
        "use_dora",
        "use_rslora",
        "use_qalora",
        "use_bdlora",
        "lora_bias",
        "fan_in_fan_out",
        "rank_pattern",
        "alpha_pattern",
        "layers_to_transform",
        "layer_replication",
        "modules_to_save",
        "megatron_config",
        "target_parameters",
        "trainable_token_indices",
        "alora_invocation_tokens",
        "velora_config",
        "arrow_config",
        "monteclora_config",
        "kasa_config",
        "ensure_weight_tying",
    ];
    for key in off {
        let is_off = match s.value(key) {
            None | Some(Value::Bool(false)) => true,
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(_) => false,
        };
        if !is_off {
            return Err(s.unsupported(key, "leaving it out"));
        }
    }
    // Initialisations other than these also change the base weights.
    match s.value("init_lora_weights") {
        None | Some(Value::Bool(_)) => Ok(()),
        Some(Value::String(name)) if name == "gaussian" => Ok(()),
        Some(_) => Err(s.unsupported("init_lora_weights", "true, false, \"gaussian\"")),
    }
}
