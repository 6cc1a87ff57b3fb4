//! Attributes of operations in the text form: one trait per field type, so that an op declares its fields once.

use crate::types::DType;

/// A float attribute that compares and hashes by its bits, so that operations can be hash-consed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Real(u64);

impl Real {
    /// Wraps a number.
    pub fn new(value: f64) -> Self {
        Self(value.to_bits())
    }

    /// The number.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl From<f64> for Real {
    fn from(value: f64) -> Self {
        Self::new(value)
    }
}

impl std::fmt::Debug for Real {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.get())
    }
}

/// A field of an operation that can be written to and read from text.
pub trait Attr: Sized {
    /// Text without commas at bracket depth zero.
    fn write(&self) -> String;
    /// The inverse of [`Attr::write`].
    fn read(text: &str) -> Result<Self, String>;
}

macro_rules! attr_from_str {
    ($($ty:ty),*) => {$(
        impl Attr for $ty {
            fn write(&self) -> String {
                self.to_string()
            }

            fn read(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("`{text}` is not a {}", stringify!($ty)))
            }
        }
    )*};
}

attr_from_str!(usize, u32, bool);

impl Attr for Real {
    fn write(&self) -> String {
        format!("{:?}", self.get())
    }

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map(Real::new).map_err(|_| format!("`{text}` is not a number"))
    }
}

impl Attr for DType {
    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

impl Attr for String {
    fn write(&self) -> String {
        format!("{self:?}")
    }

    fn read(text: &str) -> Result<Self, String> {
        let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
        inner.map(str::to_owned).ok_or_else(|| format!("`{text}` is not a quoted name"))
    }
}

impl Attr for Vec<usize> {
    fn write(&self) -> String {
        let parts: Vec<String> = self.iter().map(usize::to_string).collect();
        format!("[{}]", parts.join(","))
    }

    fn read(text: &str) -> Result<Self, String> {
        let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        let inner = inner.ok_or_else(|| format!("`{text}` is not a list"))?;
        inner.split(',').map(str::trim).filter(|part| !part.is_empty()).map(usize::read).collect()
    }
}

/// Splits `text` at commas that are outside brackets and quotes.
pub(crate) fn split_top_level(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut quoted, mut start) = (Vec::new(), 0i32, false, 0);
    for (at, ch) in text.char_indices() {
        match ch {
            '"' => quoted = !quoted,
            '[' | '(' | '{' if !quoted => depth += 1,
            ']' | ')' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = text[start..].trim();
    if !last.is_empty() {
        parts.push(last);
    }
    parts
}
