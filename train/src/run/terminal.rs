//! Standard error as two layers: lines that stay, and one status line below them that is redrawn.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anstream::{AutoStream, ColorChoice};

/// The status line on show, so that other lines can be printed above it.
static STATUS: Mutex<Option<String>> = Mutex::new(None);

/// Whether a status line can be redrawn: standard error is a terminal that understands escape codes, and the user has
/// not asked for plain output (`NO_COLOR`, `TERM=dumb`).
pub fn is_animated() -> bool {
    let stderr = std::io::stderr();
    stderr.is_terminal() && AutoStream::choice(&stderr) != ColorChoice::Never
}

/// Prints a line that stays. Styles in it are left out where standard error does not show them.
pub fn print(line: &str) {
    let status = lock();
    let redrawn = status.as_deref().map(draw).unwrap_or_default();
    let clear = if redrawn.is_empty() { "" } else { CLEAR };
    write(&format!("{clear}{line}\n{redrawn}"));
}

/// Shows `line` below everything else until it is replaced or cleared. Only for terminals ([`is_animated`]).
pub fn show_status(line: &str) {
    let mut status = lock();
    write(&draw(line));
    *status = Some(line.into());
}

/// Takes the status line away.
pub fn clear_status() {
    if lock().take().is_some() {
        write(CLEAR);
    }
}

/// Back to the first column, and the line is empty.
const CLEAR: &str = "\r\x1b[2K";

/// A status line longer than the terminal is cut there instead of wrapping, because only one line can be redrawn.
fn draw(line: &str) -> String {
    format!("{CLEAR}\x1b[?7l{line}\x1b[?7h")
}

/// A closed standard error must not end a run, so failures are of no interest.
fn write(text: &str) {
    let mut stderr = anstream::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

fn lock() -> MutexGuard<'static, Option<String>> {
    STATUS.lock().unwrap_or_else(PoisonError::into_inner)
}
