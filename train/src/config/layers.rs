//! Where values come from: the file, the environment, `--set` and flags, each giving single assignments.
//!
//! An assignment keeps the text of its value and its origin, so that a bad value is reported where it was written.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Key, SECTIONS};
use super::nearest::{nearest, nearest_key, nearest_section};
use super::setting::Kind as ValueKind;
use super::values::Backend;
use crate::error::{Error, Kind, Result};

/// One value for one key.
#[derive(Clone, Debug)]
pub struct Assignment {
    pub(super) key: &'static Key,
    /// The value as TOML.
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a configuration file; line and column count from 1.
    File {
        /// The file.
        path: PathBuf,
        /// Line.
        line: usize,
        /// Column, in characters.
        column: usize,
    },
    /// In an environment variable of this name.
    Environment(&'static str),
    /// In the argument of a `--set`.
    Set(String),
    /// In the argument of the flag of this name.
    Flag(&'static str),
    /// In the row of this name, which `recipe.row` asks for.
    Recipe(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Set(argument) => write!(f, "--set {argument}"),
            Self::Flag(flag) => f.write_str(flag),
            Self::Recipe(row) => write!(f, "recipe {row}"),
        }
    }
}

/// Environment variables that set a key.
const ENVIRONMENT: &[(&str, &str)] = &[("WGPU_BACKEND", "device.backend"), ("WGPU_ADAPTER_NAME", "device.adapter")];

impl Assignment {
    /// From the argument of `--set`, `section.key=value`. The value is TOML; text, paths and words may go without quotes.
    pub fn from_set(argument: &str) -> Result<Self> {
        let origin = Origin::Set(argument.into());
        let Some((path, value)) = argument.split_once('=') else {
            return Err(Error {
                kind: Kind::Config,
                what: "not an assignment".into(),
                place: origin.to_string(),
                why: "expected section.key=value".into(),
                hint: "for example --set train.lr=1e-4".into(),
            });
        };
        let key = find(path.trim(), &origin)?;
        Ok(Self { key, text: bare(key, value.trim()), origin })
    }

    /// From a flag that stands for a key.
    pub fn from_flag(flag: &'static str, path: &str, value: &str) -> Result<Self> {
        let origin = Origin::Flag(flag);
        let key = find(path, &origin)?;
        Ok(Self { key, text: quoted(value), origin })
    }

    /// From the environment, which `read` gives access to. Empty variables count as unset.
    pub fn from_environment(read: impl Fn(&str) -> Option<String>) -> Result<Vec<Self>> {
        let mut assignments = Vec::new();
        for &(name, path) in ENVIRONMENT {
            let Some(value) = read(name).filter(|value| !value.trim().is_empty()) else { continue };
            let origin = Origin::Environment(name);
            let key = find(path, &origin)?;
            let value = if path == "device.backend" { backend(&value) } else { value.trim() };
            assignments.push(Self { key, text: quoted(value), origin });
        }
        Ok(assignments)
    }

    /// From a configuration file, in the order of the file.
    pub(super) fn from_file(path: &Path, source: &str) -> Result<Vec<Self>> {
        let document = DeTable::parse(source).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            Error {
                kind: Kind::Config,
                what: "not valid TOML".into(),
                place: position(path, source, offset).to_string(),
                why: error.message().to_string(),
                hint: "`viral-wgpu config init` writes a complete example".into(),
            }
        })?;
        let mut assignments = Vec::new();
        for (section, value) in document.get_ref() {
            section_assignments(path, source, section, value, &mut assignments)?;
        }
        assignments.sort_by_key(|assignment| match assignment.origin {
            Origin::File { line, column, .. } => (line, column),
            Origin::Environment(_) | Origin::Set(_) | Origin::Flag(_) | Origin::Recipe(_) => (0, 0),
        });
        Ok(assignments)
    }

    /// The error for a value that does not fit its key.
    pub(super) fn mismatch(&self) -> Error {
        let found = shorten(&self.text);
        let word = found.trim_matches('"');
        let choices = self.key.kind.choices().unwrap_or_default();
        let hint = match nearest(word, choices.iter().map(|choice| choice.name)) {
            Some(name) => format!("did you mean {name:?}?"),
            None => format!("{}: {}", self.key.path(), self.key.help),
        };
        Error {
            kind: Kind::Config,
            what: format!("`{}` cannot be {found}", self.key.path()),
            place: self.origin.to_string(),
            why: format!("expected {}", self.key.kind.describe()),
            hint,
        }
    }
}

/// The key called `path`, or the error that names the nearest one.
fn find(path: &str, origin: &Origin) -> Result<&'static Key> {
    if let Some(key) = keys::all().find(|key| key.path() == path) {
        return Ok(key);
    }
    let (section, name) = path.split_once('.').unwrap_or(("", path));
    Err(unknown_key(section, name, origin))
}

fn unknown_key(section: &str, name: &str, origin: &Origin) -> Error {
    let known = SECTIONS.iter().find(|known| known.name == section);
    let why = match known {
        Some(known) => {
            let names: Vec<_> = known.keys.iter().map(|key| key.name).collect();
            format!("the keys of [{section}] are {}", names.join(", "))
        }
        None => format!("the sections are {}", section_names()),
    };
    let hint = match (nearest_key(section, name), nearest_section(section).filter(|_| known.is_none())) {
        (Some(key), _) => format!("did you mean `{}`?", key.path()),
        (None, Some(section)) => format!("did you mean [{section}]?"),
        (None, None) => "`viral-wgpu config init` lists every key with its meaning".into(),
    };
    let shown = if section.is_empty() { name.into() } else { format!("{section}.{name}") };
    Error { kind: Kind::Config, what: format!("unknown key `{shown}`"), place: origin.to_string(), why, hint }
}

fn section_assignments(
    path: &Path,
    source: &str,
    section: &Spanned<toml::de::DeString<'_>>,
    value: &Spanned<DeValue<'_>>,
    assignments: &mut Vec<Assignment>,
) -> Result<()> {
    let origin = position(path, source, section.span().start);
    let known = SECTIONS.iter().find(|known| known.name == section.get_ref());
    let (known, table) = match (known, value.get_ref()) {
        (Some(known), DeValue::Table(table)) => (known, table),
        (Some(known), other) => {
            return Err(Error {
                kind: Kind::Config,
                what: format!("`{}` is a section, not a key", known.name),
                place: origin.to_string(),
                why: format!("found {}", other.type_str()),
                hint: format!("write [{}] on a line of its own and its keys below", known.name),
            });
        }
        (None, DeValue::Table(_)) => return Err(unknown_section(section.get_ref(), &origin)),
        (None, _) => return Err(unknown_key("", section.get_ref(), &origin)),
    };
    for (name, value) in table {
        let at = position(path, source, name.span().start);
        let Some(key) = known.keys.iter().find(|key| key.name == name.get_ref()) else {
            return Err(unknown_key(known.name, name.get_ref(), &at));
        };
        let origin = position(path, source, value.span().start);
        let text = match value.get_ref() {
            DeValue::Table(_) => "a table".into(),
            _ => source.get(value.span()).unwrap_or_default().to_string(),
        };
        assignments.push(Assignment { key, text, origin });
    }
    Ok(())
}

fn unknown_section(name: &str, origin: &Origin) -> Error {
    let hint = match nearest_section(name) {
        Some(section) => format!("did you mean [{section}]?"),
        None => "`viral-wgpu config init` lists every section with its keys".into(),
    };
    Error {
        kind: Kind::Config,
        what: format!("unknown section `[{name}]`"),
        place: origin.to_string(),
        why: format!("the sections are {}", section_names()),
        hint,
    }
}

fn section_names() -> String {
    SECTIONS.iter().map(|section| section.name).collect::<Vec<_>>().join(", ")
}

/// Line and column of a byte offset.
fn position(path: &Path, source: &str, offset: usize) -> Origin {
    let before = source.get(..offset).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Origin::File { path: path.into(), line, column }
}

/// The value of a `--set` as TOML: what already is TOML of the right kind stays, other text gets its quotes.
fn bare(key: &Key, value: &str) -> String {
    let is_toml = DeValue::parse(value).is_ok_and(|value| match value.get_ref() {
        DeValue::String(_) => true,
        DeValue::Integer(_) | DeValue::Float(_) => matches!(key.kind, ValueKind::PathOrShare),
        _ => false,
    });
    if key.kind.is_text() && !is_toml { quoted(value) } else { value.into() }
}

fn quoted(value: &str) -> String {
    toml::Value::from(value).to_string()
}

/// The first backend of a comma-separated list as wgpu reads it, by the name it has here.
fn backend(value: &str) -> &str {
    let first = value.split(',').next().unwrap_or_default().trim();
    match first.to_ascii_lowercase().as_str() {
        "vk" => "vulkan",
        "mtl" => "metal",
        "d3d12" => "dx12",
        "opengl" | "gles" => "gl",
        lower => Backend::ALL.iter().map(|backend| backend.name()).find(|&name| name == lower).unwrap_or(first),
    }
}

/// A value as an error message shows it.
fn shorten(text: &str) -> String {
    const LONGEST: usize = 60;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
