//! Typed access to a JSON object with errors that name file, key and value.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Activation, ConfigError, io_error};

/// Configuration files are a few kilobytes; anything larger than this is not one.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Extents beyond this are typing errors; below it, the products of a few of them do not overflow.
const MAX_EXTENT: i64 = 1 << 24;

/// Largest side of a picture; position tables grow with its square.
const MAX_SIDE: i64 = 1 << 14;

/// Lists of layers stay short.
const MAX_LAYERS: i64 = 1000;

/// A JSON file whose root is an object.
pub(crate) struct Document {
    path: PathBuf,
    root: Map<String, Value>,
}

/// One object inside a document. `null` counts as a missing key, as in the library.
#[derive(Clone)]
pub(crate) struct Section<'a> {
    path: &'a Path,
    prefix: String,
    map: &'a Map<String, Value>,
}

impl Document {
    /// Reads and parses a file.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let length = std::fs::metadata(path).map_err(|e| io_error(path, e))?.len();
        if length > MAX_FILE_BYTES {
            let problem = format!("{length} bytes is too large for a configuration file");
            return Err(ConfigError::Json { path: path.to_path_buf(), problem });
        }
        let bytes = std::fs::read(path).map_err(|e| io_error(path, e))?;
        Self::parse(path, &bytes)
    }

    /// Parses bytes that came from `path`.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, ConfigError> {
        let problem = match serde_json::from_slice::<Value>(bytes) {
            Ok(Value::Object(root)) => return Ok(Self { path: path.to_path_buf(), root }),
            Ok(other) => format!("the root is {}", shorten(&other)),
            Err(error) => error.to_string(),
        };
        Err(ConfigError::Json { path: path.to_path_buf(), problem })
    }

    /// The root object.
    pub(crate) fn root(&self) -> Section<'_> {
        Section { path: &self.path, prefix: String::new(), map: &self.root }
    }
}

impl<'a> Section<'a> {
    /// The value of a key, unless it is missing or `null`.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A nested object.
    pub(crate) fn section(&self, key: &str) -> Result<Option<Section<'a>>, ConfigError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Section { path: self.path, prefix: self.dotted(key) + ".", map })),
            Some(_) => Err(self.wrong(key, "an object")),
        }
    }

    /// A positive extent.
    pub(crate) fn size(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        Ok(self.optional_size(key)?.unwrap_or(default))
    }

    /// A count, which may be zero.
    pub(crate) fn count(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(default) };
        match integer(value) {
            Some(n) if (0..=MAX_EXTENT).contains(&n) => Ok(n as usize),
            _ => Err(self.wrong(key, &format!("an integer from 0 to {MAX_EXTENT}"))),
        }
    }

    /// A positive extent without a default.
    pub(crate) fn optional_size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.within(key, MAX_EXTENT)
    }

    /// A number of layers.
    pub(crate) fn layers(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        Ok(self.within(key, MAX_LAYERS)?.unwrap_or(default))
    }

    /// The side of a square, written as `n` or `[n, n]`.
    pub(crate) fn side(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        let Some(Value::Array(sides)) = self.value(key) else {
            return Ok(self.within(key, MAX_SIDE)?.unwrap_or(default));
        };
        match sides.iter().map(integer).collect::<Option<Vec<_>>>().as_deref() {
            Some([a, b]) if a == b && (1..=MAX_SIDE).contains(a) => Ok(*a as usize),
            Some([_, _]) => Err(self.unsupported(key, "squares")),
            _ => Err(self.wrong(key, "a positive integer or a pair of them")),
        }
    }

    fn within(&self, key: &str, largest: i64) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match integer(value) {
            Some(n) if (1..=largest).contains(&n) => Ok(Some(n as usize)),
            _ => Err(self.wrong(key, &format!("a positive integer up to {largest}"))),
        }
    }

    /// A signed integer.
    pub(crate) fn integer(&self, key: &str, default: i64) -> Result<i64, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(default) };
        integer(value).ok_or_else(|| self.wrong(key, "an integer"))
    }

    /// A finite number.
    pub(crate) fn number(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(default) };
        value.as_f64().filter(|x| x.is_finite()).ok_or_else(|| self.wrong(key, "a number"))
    }

    /// A number above zero.
    pub(crate) fn positive(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        let number = self.number(key, default)?;
        if number > 0.0 { Ok(number) } else { Err(self.wrong(key, "a number above zero")) }
    }

    /// Three finite numbers, one for each colour channel.
    pub(crate) fn channels(&self, key: &str, default: [f64; 3]) -> Result<[f64; 3], ConfigError> {
        let Some(value) = self.value(key) else { return Ok(default) };
        let numbers: Option<Vec<f64>> =
            value.as_array().and_then(|list| list.iter().map(|x| x.as_f64().filter(|x| x.is_finite())).collect());
        numbers.and_then(|list| list.try_into().ok()).ok_or_else(|| self.wrong(key, "a list of three numbers"))
    }

    /// A truth value.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, "true or false"))
    }

    /// A string.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "a string"))
    }

    /// An activation out of those that the caller implements.
    pub(crate) fn activation(
        &self,
        key: &str,
        default: Activation,
        implemented: &[Activation],
    ) -> Result<Activation, ConfigError> {
        let Some(name) = self.text(key)? else { return Ok(default) };
        implemented.iter().copied().find(|a| a.name() == name).ok_or_else(|| {
            let names: Vec<_> = implemented.iter().map(|a| a.name()).collect();
            self.unsupported(key, &names.join(", "))
        })
    }

    /// Refuses any value but `only`; a missing key means `only`.
    pub(crate) fn refuse_unless(&self, key: &str, only: Value) -> Result<(), ConfigError> {
        match self.value(key) {
            None => Ok(()),
            Some(value) if *value == only || (only.is_number() && value.as_f64() == only.as_f64()) => Ok(()),
            Some(_) => Err(self.unsupported(key, &only.to_string())),
        }
    }

    /// Error: the key's value is of the wrong kind.
    pub(crate) fn wrong(&self, key: &str, expected: &str) -> ConfigError {
        ConfigError::Value {
            path: self.path.to_path_buf(),
            key: self.dotted(key),
            value: self.shown(key),
            expected: expected.to_string(),
        }
    }

    /// Error: the key's value is legitimate but not implemented.
    pub(crate) fn unsupported(&self, key: &str, supported: &str) -> ConfigError {
        ConfigError::Unsupported {
            path: self.path.to_path_buf(),
            key: self.dotted(key),
            value: self.shown(key),
            supported: supported.to_string(),
        }
    }

    /// Error: settings contradict each other.
    pub(crate) fn inconsistent(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError::Inconsistent { path: self.path.to_path_buf(), problem: problem.into() }
    }

    /// Checks `value % divisor == 0`, naming both keys otherwise.
    pub(crate) fn divisible(&self, value: (&str, usize), divisor: (&str, usize)) -> Result<(), ConfigError> {
        if value.1.is_multiple_of(divisor.1) {
            return Ok(());
        }
        let (a, b) = (self.dotted(value.0), self.dotted(divisor.0));
        Err(self.inconsistent(format!("`{a}` = {} is not a multiple of `{b}` = {}", value.1, divisor.1)))
    }

    fn dotted(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn shown(&self, key: &str) -> String {
        self.map.get(key).map_or_else(|| "missing".to_string(), shorten)
    }
}

/// An integer, also when it is written as `4.0`.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let x = value.as_f64()?;
        (x.fract() == 0.0 && x.abs() <= f64::from(i32::MAX)).then_some(x as i64)
    })
}

/// A value as JSON, cut to a length that fits into a message.
fn shorten(value: &Value) -> String {
    const LIMIT: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
