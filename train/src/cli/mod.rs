//! The command line. One file per command; `commands!` lists them, one line each.
//!
//! Results go to standard output, everything else to standard error. A command returns a [`Result`]; [`main`] prints
//! the error and turns its kind into the exit code.

mod bench;
mod cache;
mod config;
mod data;
mod devices;
mod doctor;
mod dump;
mod failure;
mod init;
mod logger;
mod options;
mod output;
mod plan;
mod preset;
mod runs;
mod train;

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};

use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  viral-wgpu train --demo               a tiny model on made-up pictures, in about a minute
  viral-wgpu devices                    what can train here
  viral-wgpu config init my.toml        a configuration with every key explained
  viral-wgpu plan my.toml               memory and work of a step, without a GPU
  viral-wgpu train my.toml              train; results go to the run folder
";

const REFERENCE: &str = "\
Environment:
  WGPU_BACKEND        as --backend (below --backend and --set, above the file)
  WGPU_ADAPTER_NAME   as --adapter (likewise)
  VIRAL_CACHE_DIR     where compiled kernels are kept between runs
  RUST_LOG            what is logged, for example debug or viral_runtime=trace
  NO_COLOR            plain text, no animation

Exit codes:
   0  done                              6  out of memory
   2  usage or configuration            7  stopped by the non-finite guard
   3  dataset invalid                   8  disk or other input and output
   4  model, adapter or checkpoint     10  run folder in use
      file invalid                     11  a check of finished work failed
   5  no suitable device, or lost      70  internal error
 130  SIGINT, 143  SIGTERM: a checkpoint was saved, --resume goes on
";

/// Fine-tunes LLaVA-type multimodal models with visual representation alignment, on any GPU that wgpu reaches.
#[derive(Debug, Parser)]
#[command(name = "viral-wgpu", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n{REFERENCE}"))]
struct Cli {
    /// Say more; twice for everything
    #[arg(short, long, global = true, display_order = 100, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Say only what went wrong
    #[arg(short, long, global = true, display_order = 101)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

/// Declares the commands from their modules; each module has `Args` and `run`.
macro_rules! commands {
    ($( $Name:ident => $module:ident, )+) => {
        #[derive(Debug, Subcommand)]
        enum Command { $( $Name($module::Args), )+ }

        impl Command {
            fn run(self) -> Result<()> {
                match self { $( Self::$Name(args) => $module::run(args), )+ }
            }
        }
    };
}

commands! {
    Train => train,
    Init => init,
    Plan => plan,
    Data => data,
    Runs => runs,
    Bench => bench,
    Devices => devices,
    Doctor => doctor,
    Config => config,
    Dump => dump,
}

/// Runs the program as the command line says.
pub fn main() -> ExitCode {
    failure::report_panics();
    ExitCode::from(failure::exit_code(run))
}

fn run() -> Result<(), failure::Failure> {
    let cli = Cli::try_parse()?;
    logger::init(logger::Verbosity::new(cli.verbose, cli.quiet), std::env::var("RUST_LOG").ok().as_deref())?;
    Ok(cli.command.run()?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_has_help() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {} has no help", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
