//! How the program ends when something goes wrong.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic;

use anstyle::{AnsiColor, Style};

use crate::error::{Error, Kind, escape};
use crate::run::terminal;

/// Why a command line was not carried out.
pub(super) enum Failure {
    /// It was not understood, or it asked for help.
    Usage(clap::Error),
    /// The command failed.
    Command(Error),
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Command(error)
    }
}

/// Runs `program`, prints what went wrong, and returns the exit code.
pub(super) fn exit_code(program: fn() -> Result<(), Failure>) -> u8 {
    match panic::catch_unwind(program) {
        Ok(Ok(())) => 0,
        Ok(Err(Failure::Usage(error))) => {
            // Help and version come this way too, and go to standard output; a closed pipe is no failure.
            let _ = error.print();
            if error.use_stderr() { Kind::Config.exit_code() } else { 0 }
        }
        Ok(Err(Failure::Command(error))) => {
            print_error(&error.to_string());
            error.kind.exit_code()
        }
        Err(_) => Kind::Internal.exit_code(),
    }
}

/// Makes a panic print a short message. Where the environment asks for a backtrace, it follows.
pub(super) fn report_panics() {
    panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let message =
            text.or(payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a message");
        let place = info.location().map_or_else(|| "an unknown place".into(), ToString::to_string);
        let error = Error { place, ..Error::internal("internal error", escape(message)) };
        print_error(&error.to_string());
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            terminal::print(&backtrace.to_string());
        } else {
            terminal::print("         RUST_BACKTRACE=1 shows how it came about");
        }
    }));
}

fn print_error(text: &str) {
    const ERROR: Style = AnsiColor::BrightRed.on_default().bold();
    terminal::clear_status();
    terminal::print(&format!("{ERROR}error:{ERROR:#} {text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_exit_code() {
        assert_eq!(exit_code(|| Ok(())), 0);
        assert_eq!(exit_code(|| Err(Error::internal("what", "why").into())), 70);
        assert_eq!(exit_code(|| Err(Error { kind: Kind::Locked, ..Error::internal("what", "why") }.into())), 10);
        assert_eq!(exit_code(|| Err(clap::Error::new(clap::error::ErrorKind::UnknownArgument).into())), 2);
        assert_eq!(exit_code(|| Err(clap::Error::new(clap::error::ErrorKind::DisplayVersion).into())), 0);
        assert_eq!(exit_code(|| panic!("a defect")), 70);
    }
}
