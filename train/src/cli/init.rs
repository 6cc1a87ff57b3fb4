//! `viral-wgpu init`: a folder to start from.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::output;
use crate::demo::{self, Encoder, Language, PRESETS, Parts, Preset, TEACHERS, TINY, TeacherPart};
use crate::error::{Result, escape};

/// Write a folder with model, teacher and data in the Hugging Face layout
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder to write; it must be new or empty
    dir: PathBuf,
    /// What to write
    #[arg(long, default_value = TINY.name, value_parser = presets())]
    preset: &'static Preset,
    /// Language model of a preset with random weights
    #[arg(long, value_parser = named(&Language::ALL))]
    language: Option<Language>,
    /// Vision encoder
    #[arg(long, value_parser = named(&Encoder::ALL))]
    encoder: Option<Encoder>,
    /// Vision model that provides the targets; presets with random weights make a tiny one of its kind
    #[arg(long, value_parser = teachers())]
    teacher: Option<&'static TeacherPart>,
    /// Also an autoencoder, to reconstruct pictures beside alignment (ROSS)
    #[arg(long)]
    ross: bool,
    /// Start of every random stream
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

pub(super) fn run(args: Args) -> Result<()> {
    let parts = Parts { language: args.language, encoder: args.encoder, teacher: args.teacher, ross: args.ross };
    let config = demo::init_with(&args.dir, args.preset, &parts, args.seed)?;
    log::info!("wrote {}: {}", args.dir.display(), args.preset.help);
    output::print(&format!("{}\n", escape(&config.display().to_string())))
}

fn presets() -> impl TypedValueParser<Value = &'static Preset> {
    let names = PRESETS.map(|preset| PossibleValue::new(preset.name).help(preset.help));
    PossibleValuesParser::new(names).try_map(|name| Preset::find(&name).ok_or("unknown preset"))
}

/// One of the values of a list by its name.
fn named<T: Copy + Send + Sync + 'static>(all: &'static [(&'static str, T)]) -> impl TypedValueParser<Value = T> {
    let find = |name: String| all.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
    PossibleValuesParser::new(all.iter().map(|(name, _)| *name)).try_map(move |name| find(name).ok_or("unknown name"))
}

fn teachers() -> impl TypedValueParser<Value = &'static TeacherPart> {
    let names = TEACHERS.iter().map(|teacher| PossibleValue::new(teacher.name).help(teacher.help));
    PossibleValuesParser::new(names).try_map(|name| TeacherPart::find(&name).ok_or("unknown teacher"))
}
