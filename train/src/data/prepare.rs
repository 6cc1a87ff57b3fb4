//! Records as the model's own tokenizer and image processor see them.

use std::path::{Path, PathBuf};

use viral_model::config::{ImageProcessorConfig, LlavaConfig};
use viral_model::image::{Aspect, ImageError, ImageProcessor, decode_file};
use viral_model::text::{Encoded, RenderOptions, Template, Tokenizer, TokenizerError, Turn};

use super::defect::Rule;
use super::picture::LIMITS;
use super::record::Record;
use super::sample::Prepare;
use crate::config::{self, DataConfig, ImageAspect};
use crate::error::{Error, Kind, Result};

/// Template, tokenizer and image processor of a model.
pub struct Preparer {
    tokenizer: Tokenizer,
    template: Template,
    processor: ImageProcessor,
    /// Rows of the embedding table.
    vocabulary: usize,
}

impl Preparer {
    /// Reads the tokenizer of the model in `dir` and fits `processor` to its vision tower.
    ///
    /// # Errors
    /// The tokenizer is missing or damaged, or the processor's settings do not yield what the tower takes.
    pub fn open(dir: &Path, llava: &LlavaConfig, processor: ImageProcessorConfig, data: &DataConfig) -> Result<Self> {
        let tokenizer = Tokenizer::from_dir(dir).map_err(tokenizer_error)?;
        let aspect = match data.image_aspect {
            ImageAspect::Pad => Aspect::Pad,
            ImageAspect::Square => Aspect::Square,
        };
        let template = match data.template {
            config::Template::VicunaV1 => Template::VicunaV1,
            config::Template::LlavaV1 => Template::LlavaV1,
            config::Template::Qwen2 => Template::Qwen2,
            config::Template::Plain => Template::Plain,
        };
        let end = template.end_token();
        if template != Template::Plain && tokenizer.id_of(end).is_none() {
            log::warn!(
                "template {} ends answers with {end}, which the tokenizer of {} does not know as one token",
                template.name(),
                dir.display()
            );
        }
        let processor = ImageProcessor::new(processor, aspect, llava.vision.image_size)?;
        Ok(Self { tokenizer, template, processor, vocabulary: llava.text.vocab_size })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

impl Prepare for Preparer {
    fn encode(&self, record: &Record) -> Result<Encoded, (Rule, String)> {
        let turns = record.turns.iter().map(|turn| Turn { from: turn.role.name(), value: &turn.text });
        let options = RenderOptions::new(self.template, record.image.is_some());
        let encoded = self.tokenizer.encode(&turns.collect::<Vec<_>>(), options);
        let encoded = encoded.map_err(|error| (Rule::Template, error.to_string()))?;
        match encoded.ids.iter().find(|&&id| id >= self.vocabulary as i64) {
            None => Ok(encoded),
            Some(id) => {
                let detail = format!("token id {id}, but the embedding table has {} rows", self.vocabulary);
                Err((Rule::UnknownToken, detail))
            }
        }
    }

    fn pixels(&self, file: &Path) -> Result<Vec<f32>, (Rule, String)> {
        let picture = decode_file(file, &LIMITS).map_err(image_fault)?;
        self.processor.pixels(&picture, file).map_err(image_fault)
    }
}

fn image_fault(error: ImageError) -> (Rule, String) {
    let shown = |path: PathBuf, problem: String| format!("`{}`: {problem}", path.display());
    match error {
        ImageError::Io { path, source } => (Rule::ImageUnreadable, shown(path, source.to_string())),
        ImageError::Unknown { path } => (Rule::ImageBroken, shown(path, "no picture of a known format".into())),
        ImageError::Broken { path, problem } => (Rule::ImageBroken, shown(path, problem)),
        ImageError::TooLarge { path, problem } => (Rule::ImageTooLarge, shown(path, problem)),
    }
}

fn tokenizer_error(error: TokenizerError) -> Error {
    let model = |what: &str, path: &Path, why: String, hint: &str| Error {
        kind: Kind::Model,
        what: what.into(),
        place: path.display().to_string(),
        why,
        hint: hint.into(),
    };
    match error {
        TokenizerError::Io { path, source, hint } => {
            model("cannot read the tokenizer", &path, source.to_string(), hint)
        }
        TokenizerError::Broken { path, problem } => model(
            "the tokenizer's file cannot be used",
            &path,
            problem,
            "download the file again; it comes from a Hugging Face tokenizer of version 4 or later",
        ),
    }
}
