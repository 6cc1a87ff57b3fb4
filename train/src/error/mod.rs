//! The error that reaches the user: what went wrong, where, why, and what to try.
//!
//! All four parts are fields, so the compiler sees to it that none is forgotten. The kind of an error decides the exit
//! code of the program and nothing else.

mod model;
mod runtime;

use std::fmt;
use std::io;
use std::path::Path;

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error is about; each kind has its own exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Command line or configuration.
    Config,
    /// The dataset: records, conversations, pictures.
    Data,
    /// A model, tokenizer, adapter or checkpoint file.
    Model,
    /// No suitable device, or the device was lost.
    Device,
    /// Host or device memory does not suffice.
    Memory,
    /// The non-finite guard stopped the run.
    NonFinite,
    /// Disk and other input or output.
    Io,
    /// Downloads.
    Network,
    /// Another process owns the run folder.
    Locked,
    /// A check of finished work failed.
    Verification,
    /// A defect of the program itself.
    Internal,
    /// SIGINT has ended a run that can be resumed.
    Interrupted,
    /// SIGTERM has ended a run that can be resumed.
    Terminated,
}

impl Kind {
    /// Exit code of the program.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Config => 2,
            Self::Data => 3,
            Self::Model => 4,
            Self::Device => 5,
            Self::Memory => 6,
            Self::NonFinite => 7,
            Self::Io => 8,
            Self::Network => 9,
            Self::Locked => 10,
            Self::Verification => 11,
            Self::Internal => 70,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

/// An error as the user reads it.
///
/// `Display` prints the first part on a line of its own and each other part, where it is not empty, on an indented line
/// below. Control characters are escaped, because names and values often come from files that someone else wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    /// What happened, in one line without a full stop.
    pub what: String,
    /// Where: a path, `file:line:column`, a flag, a record, a tensor.
    pub place: String,
    /// Why: what was found and what was expected.
    pub why: String,
    /// What to try next.
    pub hint: String,
}

impl Error {
    /// An operation on `path` that the operating system refused. `action` completes "cannot …", for example `"write"`.
    pub fn io(action: &str, path: &Path, error: &io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "check who owns the path and may read or write it",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space, or choose another disk",
            io::ErrorKind::ReadOnlyFilesystem => "choose a folder that can be written",
            io::ErrorKind::IsADirectory => "name a file, not a folder",
            io::ErrorKind::NotADirectory => "a part of the path is a file where a folder is expected",
            _ => "check the disk and its file system",
        };
        Self {
            kind: Kind::Io,
            what: format!("cannot {action}"),
            place: path.display().to_string(),
            why: error.to_string(),
            hint: hint.into(),
        }
    }

    /// A state that only a defect of this program can bring about.
    pub fn internal(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            kind: Kind::Internal,
            what: what.into(),
            place: String::new(),
            why: why.into(),
            hint: "this is a defect of viral-wgpu; please report it with the command and the configuration".into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", escape(&self.what))?;
        for (name, part) in [("where", &self.place), ("why", &self.why), ("try", &self.hint)] {
            let mut name = name;
            for line in part.lines() {
                write!(f, "\n  {name:<5}  {}", escape(line))?;
                name = "";
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Makes text from a file or a command line safe to print on a terminal.
///
/// Control characters, line ends included, and the marks that reorder text appear as `\u{…}`; everything else stays.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        let reorders = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || reorders {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let codes = [
            (Kind::Config, 2),
            (Kind::Data, 3),
            (Kind::Model, 4),
            (Kind::Device, 5),
            (Kind::Memory, 6),
            (Kind::NonFinite, 7),
            (Kind::Io, 8),
            (Kind::Network, 9),
            (Kind::Locked, 10),
            (Kind::Verification, 11),
            (Kind::Internal, 70),
            (Kind::Interrupted, 130),
            (Kind::Terminated, 143),
        ];
        for (kind, code) in codes {
            assert_eq!(kind.exit_code(), code, "{kind:?}");
        }
    }

    #[test]
    fn every_part_has_its_line() {
        let error = Error {
            kind: Kind::Config,
            what: "unknown key `bacth`".into(),
            place: "config.toml:3:1".into(),
            why: "first\nsecond".into(),
            hint: "batch".into(),
        };
        let expected = "unknown key `bacth`\n  where  config.toml:3:1\n  why    first\n         second\n  try    batch";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn empty_parts_take_no_line() {
        let error = Error { hint: String::new(), ..Error::internal("broken", "because") };
        assert_eq!(error.to_string(), "broken\n  why    because");
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let error = Error {
            kind: Kind::Data,
            what: "no file `a\u{1b}[2Jb\r\nc`".into(),
            place: "x\u{202e}y\u{9b}z\u{7f}".into(),
            why: String::new(),
            hint: String::new(),
        };
        let text = error.to_string();
        assert_eq!(text.lines().count(), 2, "a name cannot forge a line: {text:?}");
        assert!(text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')), "{text:?}");
        assert!(text.contains("a\\u{1b}[2Jb\\r\\nc"), "{text}");
    }

    #[test]
    fn io_errors_keep_the_path_and_the_reason() {
        let error = Error::io("read", Path::new("a/b.json"), &io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(error.kind.exit_code(), 8);
        assert_eq!(error.place, "a/b.json");
        assert!(!error.why.is_empty() && !error.hint.is_empty());
    }
}
