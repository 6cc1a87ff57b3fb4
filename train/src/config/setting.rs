//! What one configuration key can hold: the building blocks of the table in `keys.rs`.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::de::ValueDeserializer;

/// The shape of a key's value.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// A file or folder.
    Path,
    /// A file, or a number that says how much.
    PathOrShare,
    /// `true` or `false`.
    Flag,
    /// A whole number, 0 or more.
    Count,
    /// Any finite number.
    Number,
    /// One of a closed list of words.
    Choice(&'static [Choice]),
    /// A list of any length.
    List(&'static Kind),
    /// A list of exactly two values.
    Pair(&'static Kind),
}

/// One word that a key of kind [`Kind::Choice`] accepts.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// The word.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
}

impl Kind {
    /// What a value must be, to complete the sentence "expected …".
    pub fn describe(self) -> String {
        match self {
            Self::Text => "text in quotes".into(),
            Self::Path => "a path in quotes".into(),
            Self::PathOrShare => "a path in quotes, or a share such as 0.02".into(),
            Self::Flag => "true or false".into(),
            Self::Count => "a whole number, 0 or more".into(),
            Self::Number => "a number".into(),
            Self::Choice(choices) => {
                let names: Vec<_> = choices.iter().map(|choice| format!("{:?}", choice.name)).collect();
                format!("one of {}", names.join(", "))
            }
            Self::List(item) => format!("a list in brackets, each entry {}", item.describe()),
            Self::Pair(item) => format!("a list of two, each entry {}", item.describe()),
        }
    }

    /// Whether a bare word can stand for the value where quotes are inconvenient, as on a command line.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Path | Self::PathOrShare | Self::Choice(_))
    }

    /// The closed list of words that the value, or each entry of it, is taken from.
    pub fn choices(self) -> Option<&'static [Choice]> {
        match self {
            Self::Choice(choices) => Some(choices),
            Self::List(item) | Self::Pair(item) => item.choices(),
            Self::Text | Self::Path | Self::PathOrShare | Self::Flag | Self::Count | Self::Number => None,
        }
    }
}

/// A condition on the number, or on each number of the list, that a key holds.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// What is allowed, to complete the sentence "must be …"; empty if everything is.
    pub text: &'static str,
    /// Whether a number is allowed.
    pub holds: fn(f64) -> bool,
}

impl Limit {
    /// Every finite number.
    pub const NONE: Self = Self { text: "", holds: f64::is_finite };
    /// x >= 0.
    pub const NOT_NEGATIVE: Self = Self { text: "0 or more", holds: |x| x >= 0.0 && x.is_finite() };
    /// x >= 1.
    pub const AT_LEAST_ONE: Self = Self { text: "1 or more", holds: |x| x >= 1.0 && x.is_finite() };
    /// x > 0.
    pub const POSITIVE: Self = Self { text: "above 0", holds: |x| x > 0.0 && x.is_finite() };
    /// 0 <= x <= 1.
    pub const FRACTION: Self = Self { text: "from 0 to 1", holds: |x| (0.0..=1.0).contains(&x) };
    /// 0 < x < 1.
    pub const PROPER_SHARE: Self = Self { text: "above 0 and below 1", holds: |x| x > 0.0 && x < 1.0 };
    /// 0 <= x < 1.
    pub const BELOW_ONE: Self = Self { text: "0 or more and below 1", holds: |x| (0.0..1.0).contains(&x) };
}

/// A Rust type that a configuration key can have.
pub trait Setting: Serialize + DeserializeOwned {
    /// The shape of its values in TOML.
    const KIND: Kind;
    /// Whether the key may stay unset.
    const OPTIONAL: bool = false;

    /// Reads one TOML value.
    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        Self::deserialize(ValueDeserializer::parse(text)?)
    }

    /// Makes a relative path relative to `base`; other values have nothing to do.
    fn rebase(&mut self, _base: &Path) {}
}

impl Setting for String {
    const KIND: Kind = Kind::Text;
}

impl Setting for PathBuf {
    const KIND: Kind = Kind::Path;

    fn rebase(&mut self, base: &Path) {
        *self = base.join(&*self);
    }
}

/// Samples that are kept from training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HeldOut {
    /// This share of the training file's records.
    Share(f64),
    /// The records of a file of their own.
    File(PathBuf),
}

impl Setting for HeldOut {
    const KIND: Kind = Kind::PathOrShare;

    fn rebase(&mut self, base: &Path) {
        if let Self::File(file) = self {
            file.rebase(base);
        }
    }
}

impl Setting for bool {
    const KIND: Kind = Kind::Flag;
}

impl Setting for usize {
    const KIND: Kind = Kind::Count;
}

impl Setting for u64 {
    const KIND: Kind = Kind::Count;
}

impl Setting for f64 {
    const KIND: Kind = Kind::Number;
}

impl<T: Setting> Setting for Vec<T> {
    const KIND: Kind = Kind::List(&T::KIND);
}

impl Setting for [f64; 2] {
    const KIND: Kind = Kind::Pair(&f64::KIND);
}

/// An unset key; in TOML, empty text unsets it as well, so that a later layer can take back what a file says.
impl<T: Setting> Setting for Option<T> {
    const KIND: Kind = T::KIND;
    const OPTIONAL: bool = true;

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        if text == "\"\"" { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn rebase(&mut self, base: &Path) {
        if let Some(value) = self {
            value.rebase(base);
        }
    }
}

/// Declares enums whose variants are the words that a key accepts.
macro_rules! choices {
    ($(
        $(#[doc = $doc:literal])+
        $Name:ident { $( #[doc = $help:literal] $Variant:ident = $name:literal, )+ }
    )+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $Name { $( #[doc = $help] #[serde(rename = $name)] $Variant, )+ }

        impl $Name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$( Self::$Variant ),+];

            /// The word that stands for the value in a configuration.
            pub fn name(self) -> &'static str {
                match self { $( Self::$Variant => $name, )+ }
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl $crate::config::setting::Setting for $Name {
            const KIND: $crate::config::setting::Kind = $crate::config::setting::Kind::Choice(
                &[$( $crate::config::setting::Choice { name: $name, help: $help.trim_ascii() } ),+],
            );
        }
    )+ };
}

pub(crate) use choices;
