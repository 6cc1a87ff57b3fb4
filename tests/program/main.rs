//! The program as a process: what it prints, how it exits, what it leaves when somebody ends it; and the configurations that come
//! with it.

mod cli;
mod configs;
#[cfg(unix)]
mod reliability;
#[path = "../support/mod.rs"]
mod support;

use std::process::Command;

/// The program. A child finds the software device through the same runner as this test.
fn program() -> Command {
    let program = env!("CARGO_BIN_EXE_viral-wgpu");
    match std::env::var_os("VIRAL_RUNNER").filter(|runner| !runner.is_empty()) {
        Some(runner) => {
            let mut command = Command::new(runner);
            command.arg(program);
            command
        }
        None => Command::new(program),
    }
}
