//! Ready-made model, teacher and data folders in the Hugging Face layout.
//!
//! The `tiny` preset holds everything a training run needs and trains in well under a minute on two CPU cores: random
//! weights, a tokenizer, pictures of coloured shapes and questions about them. `small` holds the same for a model that
//! is large enough to measure speed on. Their files are a pure function of the seed, the same bytes on every machine.
//! The other presets hold the configurations of published models without their weights: enough to plan memory and work,
//! and the folder that downloaded weights go into.

#[cfg(test)]
mod combinations;
mod complete;
mod parts;
mod presets;
mod scenes;
#[cfg(test)]
mod tests;
mod tokenizer;
mod vision_input;
mod weights;

use std::fs;
use std::path::{Path, PathBuf};

pub use parts::{Encoder, Language, Parts, TEACHERS, TeacherPart};
use presets::Content;
pub use presets::{PRESETS, Preset, TINY};
use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};

/// Writes the folder of a preset and returns the path of its `config.toml`.
///
/// # Errors
/// `dir` exists and holds something, or cannot be written.
pub fn init(dir: &Path, preset: &Preset, seed: u64) -> Result<PathBuf> {
    init_with(dir, preset, &Parts::default(), seed)
}

/// As [`init`], with other parts in the place of the preset's own.
///
/// # Errors
/// As [`init`], and a language model for a preset that has one by its name.
pub fn init_with(dir: &Path, preset: &Preset, parts: &Parts, seed: u64) -> Result<PathBuf> {
    parts.check(preset)?;
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error {
            kind: Kind::Config,
            what: "the folder is not empty".into(),
            place: dir.display().to_string(),
            why: "a preset is only written into a new or empty folder, so that nothing is overwritten".into(),
            hint: "name another folder".into(),
        });
    }
    match &preset.content {
        Content::Complete(complete) => complete.write(dir, parts, seed)?,
        Content::Published(published) => published().write(dir, parts)?,
    }
    Ok(dir.join("config.toml"))
}

/// Writes the folder of a preset without weights: enough to plan a run, or to measure one on made-up numbers.
///
/// # Errors
/// `dir` cannot be written.
pub(crate) fn configurations(dir: &Path, preset: &Preset) -> Result<PathBuf> {
    match &preset.content {
        Content::Complete(complete) => complete.write_all_but_weights(dir, &Parts::default(), 1)?,
        Content::Published(published) => published().write(dir, &Parts::default())?,
    }
    Ok(dir.join("config.toml"))
}

/// A run's configuration with section `[ross]` in front of `[lora]`; `settings` are lines of it.
fn with_ross(config: &str, settings: &str) -> String {
    const KEYS: &str = "enabled = true                  # reconstruct the pictures out of the visual tokens as well";
    config.replacen("[lora]\n", &format!("[ross]\n{KEYS}\nvae = \"{VAE}\"\n{settings}\n[lora]\n"), 1)
}

/// Name of the autoencoder's folder.
const VAE: &str = "vae";

/// Writes one file, and its folder if need be.
fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| Error::io("create the folder", folder, &error))?;
    }
    fs::write(path, content).map_err(|error| Error::io("write", path, &error))
}

/// Writes a JSON file with two spaces an indent and a line end.
fn write_json(path: &Path, value: &Value) -> Result<()> {
    write(path, format!("{value:#}\n"))
}

/// An object with the keys of another one added.
fn merged(mut object: Value, other: Value) -> Value {
    if let (Some(object), Value::Object(other)) = (object.as_object_mut(), other) {
        object.extend(other);
    }
    object
}

/// CLIP's settings of the image processor `class` for square pictures of `side` pixels.
fn clip_processor(class: &str, side: usize) -> Value {
    json!({
        "image_processor_type": class,
        "do_convert_rgb": true,
        "do_resize": true,
        "size": {"shortest_edge": side},
        "resample": 3,
        "do_center_crop": true,
        "crop_size": {"height": side, "width": side},
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    })
}
