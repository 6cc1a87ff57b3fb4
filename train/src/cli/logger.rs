//! Log lines on standard error, above the progress line.

use anstyle::{AnsiColor, Style};
use env_filter::Filter;
use log::{Level, Log, Metadata, Record};

use crate::error::{Error, Kind, Result, escape};
use crate::run::terminal;

/// How much the command line asks to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// What a user wants to know; `RUST_LOG` may say otherwise.
    Normal,
    /// What a developer of this project wants to know.
    Verbose,
    /// Everything, from libraries as well.
    Everything,
}

impl Verbosity {
    pub(super) fn new(verbose: u8, quiet: bool) -> Self {
        match (quiet, verbose) {
            (true, _) => Self::Quiet,
            (false, 0) => Self::Normal,
            (false, 1) => Self::Verbose,
            (false, _) => Self::Everything,
        }
    }

    /// Drivers and libraries warn about much that a user can do nothing about, so only their errors are of interest.
    fn filter(self) -> &'static str {
        match self {
            Self::Quiet => "error,viral=warn",
            Self::Normal => "error,viral=info",
            Self::Verbose => "warn,viral=debug",
            Self::Everything => "trace",
        }
    }
}

/// Starts logging; a second call changes nothing. `wanted` is `RUST_LOG`, which counts unless a flag says otherwise.
///
/// # Errors
/// [`Kind::Config`] if `wanted` is not a list of `level` or `module=level`.
pub(super) fn init(verbosity: Verbosity, wanted: Option<&str>) -> Result<()> {
    let filter = filter(verbosity, wanted)?;
    log::set_max_level(filter.filter());
    let _ = log::set_boxed_logger(Box::new(Logger(filter)));
    Ok(())
}

fn filter(verbosity: Verbosity, wanted: Option<&str>) -> Result<Filter> {
    let wanted = wanted.filter(|wanted| !wanted.is_empty() && verbosity == Verbosity::Normal);
    let mut builder = env_filter::Builder::new();
    match builder.try_parse(wanted.unwrap_or(verbosity.filter())) {
        Ok(builder) => Ok(builder.build()),
        Err(error) => Err(Error {
            kind: Kind::Config,
            what: "the log filter cannot be read".into(),
            place: format!("environment variable RUST_LOG={}", wanted.unwrap_or_default()),
            why: error.to_string(),
            hint: "for example RUST_LOG=debug, or RUST_LOG=viral_runtime=trace,warn".into(),
        }),
    }
}

struct Logger(Filter);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.0.matches(record) {
            terminal::print(&line(record));
        }
    }

    fn flush(&self) {}
}

fn line(record: &Record<'_>) -> String {
    const WARNING: Style = AnsiColor::BrightYellow.on_default().bold();
    const ERROR: Style = AnsiColor::BrightRed.on_default().bold();
    const FAINT: Style = Style::new().dimmed();
    let text = record.args().to_string();
    let text = text.lines().map(escape).collect::<Vec<_>>().join("\n");
    match record.level() {
        Level::Error => format!("{ERROR}error:{ERROR:#} {text}"),
        Level::Warn => format!("{WARNING}warning:{WARNING:#} {text}"),
        Level::Info => text,
        Level::Debug | Level::Trace => format!("{FAINT}{}: {text}{FAINT:#}", record.target()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(verbosity: Verbosity, wanted: Option<&str>, level: Level, target: &str) -> bool {
        filter(verbosity, wanted).unwrap().enabled(&Metadata::builder().level(level).target(target).build())
    }

    #[test]
    fn libraries_are_quieter_than_the_project() {
        let normal = |level, target| shown(Verbosity::Normal, None, level, target);
        assert!(normal(Level::Info, "viral_runtime::device"));
        assert!(!normal(Level::Debug, "viral_runtime::device"));
        assert!(!normal(Level::Warn, "wgpu_hal::vulkan"));
        assert!(normal(Level::Error, "wgpu_core"));
        assert!(!shown(Verbosity::Quiet, None, Level::Info, "viral_train"));
        assert!(shown(Verbosity::Verbose, None, Level::Debug, "viral_train"));
    }

    #[test]
    fn the_environment_counts_unless_a_flag_does() {
        assert!(shown(Verbosity::Normal, Some("debug"), Level::Debug, "viral_train"));
        assert!(!shown(Verbosity::Normal, Some("viral_model=trace"), Level::Info, "viral_train"));
        assert!(!shown(Verbosity::Quiet, Some("debug"), Level::Info, "viral_train"));
        assert!(shown(Verbosity::Normal, Some(""), Level::Info, "viral_train"));
        let error = filter(Verbosity::Normal, Some("viral=loud")).err().unwrap();
        assert!(error.to_string().contains("RUST_LOG=viral=loud"), "{error}");
    }

    #[test]
    fn flags_give_levels() {
        let levels = [(0, true), (0, false), (1, false), (2, false), (9, false)].map(|(v, q)| Verbosity::new(v, q));
        use Verbosity::*;
        assert_eq!(levels, [Quiet, Normal, Verbose, Everything, Everything]);
    }

    #[test]
    fn messages_cannot_control_the_terminal() {
        let escape = "\u{1b}[2J";
        let arguments = format_args!("a{escape}b\nc");
        let record = Record::builder().level(Level::Info).args(arguments).target("viral").build();
        assert_eq!(line(&record), "a\\u{1b}[2Jb\nc");
    }
}
