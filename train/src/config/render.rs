//! A configuration as TOML text: resolved, or as a commented file to start from.

use std::fmt::Write;

use super::keys::{Config, Key, SECTIONS};
use super::setting::Kind;

impl Config {
    /// Every key that is set, with its value, as TOML. A comment marks what comes from `recipe.row`.
    pub fn to_toml(&self) -> String {
        let of_recipe = self.of_recipe();
        let name = self.recipe.row.map_or("", |recipe| recipe.name);
        let mut text = String::new();
        for section in SECTIONS {
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}[{}]", section.name);
            for key in section.keys {
                if let Some(value) = self.get(key) {
                    let comes = of_recipe.iter().any(|(known, given)| *known == key && given.as_ref() == Some(&value));
                    let comment = if comes { format!("  # {name}") } else { String::new() };
                    let _ = writeln!(text, "{} = {}{comment}", key.name, value_text(&value));
                }
            }
        }
        text
    }
}

/// A configuration file with every key at its default, its meaning, and the values it accepts.
pub fn template() -> String {
    let defaults = Config::default();
    let mut text = String::from(
        "# Configuration of viral-wgpu. Every key is shown with its default and may be left out.\n\
         # Relative paths start from the folder of this file.\n",
    );
    for section in SECTIONS {
        let _ = writeln!(text, "\n# {}\n[{}]", section.help, section.name);
        for key in section.keys {
            for line in comment(key) {
                let _ = writeln!(text, "# {line}");
            }
            let _ = match defaults.get(key) {
                Some(value) => writeln!(text, "{} = {}", key.name, value_text(&value)),
                None => writeln!(text, "# {} = \"\"", key.name),
            };
        }
    }
    text
}

/// A value as it is written in a file.
pub(super) fn value_text(value: &toml::Value) -> String {
    match value {
        toml::Value::Float(number) if *number != 0.0 && number.abs() < 1e-3 => format!("{number:e}"),
        toml::Value::Array(values) => {
            let values: Vec<_> = values.iter().map(value_text).collect();
            format!("[{}]", values.join(", "))
        }
        other => other.to_string(),
    }
}

/// Help, limit and choices of a key, as comment lines.
fn comment(key: &Key) -> Vec<String> {
    let mut lines = vec![match key.limit.text {
        "" => key.help.into(),
        limit => format!("{} Must be {limit}.", key.help),
    }];
    if let Kind::Choice(choices) = key.kind {
        let width = choices.iter().map(|choice| choice.name.len()).max().unwrap_or(0);
        for choice in choices {
            lines.push(format!("  {:width$}  {}", choice.name, choice.help));
        }
    }
    lines
}
