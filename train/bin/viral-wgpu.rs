//! The `viral-wgpu` program; everything it does is in the `viral-train` crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    viral_train::cli::main()
}
