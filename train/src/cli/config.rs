//! `viral-wgpu config`: write, show and check configurations.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::options::Options;
use super::output;
use crate::config::{self, Recipe};
use crate::error::{Error, Kind, Result, escape};

/// Write, show and check configuration files
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write a configuration file in which every key is explained
    Init {
        /// File to write; - is standard output
        #[arg(default_value = "viral.toml")]
        file: PathBuf,
    },
    /// Print the configuration as it results from file, environment and command line
    Show {
        /// Configuration file; without it, the defaults are shown
        config: Option<PathBuf>,
        #[command(flatten)]
        options: Options,
    },
    /// List the rows of the paper's tables that `recipe.row` can name, and the keys that each sets
    Recipes,
    /// Check a configuration and whether the files it names are there
    Validate {
        /// Configuration file
        config: PathBuf,
        #[command(flatten)]
        options: Options,
    },
}

pub(super) fn run(args: Args) -> Result<()> {
    match args.action {
        Action::Init { file } => init(&file),
        Action::Show { config: Some(config), options } => output::print(&options.load(&config, None)?.to_toml()),
        Action::Show { config: None, options } => output::print(&options.load_defaults()?.to_toml()),
        Action::Recipes => output::print(&recipes()),
        Action::Validate { config, options } => {
            options.load(&config, None)?.check_paths()?;
            output::print(&format!("{}: valid\n", escape(&config.display().to_string())))
        }
    }
}

fn recipes() -> String {
    let width = Recipe::ALL.iter().map(|recipe| recipe.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for recipe in Recipe::ALL {
        let keys: Vec<String> = recipe.keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let (name, indent) = (recipe.name, "");
        let _ = writeln!(text, "{name:width$}  {}\n{indent:width$}  {}", recipe.row, keys.join("  "));
    }
    text
}

fn init(file: &Path) -> Result<()> {
    if file == Path::new("-") {
        return output::print(&config::template());
    }
    let mut created =
        OpenOptions::new().write(true).create_new(true).open(file).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Error {
                kind: Kind::Config,
                what: "the file exists already".into(),
                place: file.display().to_string(),
                why: "a configuration is never overwritten".into(),
                hint: "give another name, or - for standard output".into(),
            },
            _ => Error::io("write the configuration", file, &error),
        })?;
    created
        .write_all(config::template().as_bytes())
        .map_err(|error| Error::io("write the configuration", file, &error))?;
    log::info!("wrote {}", file.display());
    Ok(())
}
