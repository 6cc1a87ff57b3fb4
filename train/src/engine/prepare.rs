//! From records to tokens and pixels, with the model's own tokenizer and image processor.

use std::path::Path;

use viral_model::image::{Aspect, ImageError, ImageProcessor, Layout, Tiling, decode_file};
use viral_model::text::{ChatTemplate, Encoded, RenderOptions, Template, Tokenizer, TokenizerError, Turn};

use super::bundle::Networks;
use crate::config::Config;
use crate::data::picture::LIMITS;
use crate::data::{Prepare, Record, Rule};
use crate::error::{Error, Kind, Result};

/// The model's tokenizer and image processor.
pub(crate) struct Preparer {
    tokenizer: Tokenizer,
    images: ImageProcessor,
    tiling: Option<Tiling>,
    template: Writing,
    /// Rows of the embedding table.
    vocabulary: usize,
    supervise_final_end: bool,
    only_coco: bool,
}

/// How conversations are written down.
enum Writing {
    /// In one of the ways that are known here.
    Known(Template),
    /// In the checkpoint's own way.
    Chat(Box<ChatTemplate>),
}

impl Preparer {
    pub(crate) fn open(config: &Config, networks: &Networks) -> Result<Self> {
        let aspect = Aspect::from_name(config.data.image_aspect.name()).unwrap_or(Aspect::Pad);
        let template = writing(config)?;
        Ok(Self {
            tokenizer: Tokenizer::from_dir(&config.model.path)?,
            images: ImageProcessor::new(networks.processor.clone(), aspect, networks.llava.vision.image_size)?,
            tiling: networks.llava.tiling.clone(),
            template,
            vocabulary: networks.llava.text.vocab_size,
            supervise_final_end: config.data.qwen_supervise_final_eos,
            only_coco: config.vra.only_coco,
        })
    }
}

impl Prepare for Preparer {
    fn encode(&self, record: &Record) -> Result<Encoded, (Rule, String)> {
        let turns = record.turns.iter().map(|turn| Turn { from: turn.role.name(), value: &turn.text });
        let (turns, has_image) = (turns.collect::<Vec<_>>(), record.image.is_some());
        let encoded = match &self.template {
            Writing::Known(template) => {
                let options = RenderOptions {
                    qwen_supervise_final_eos: self.supervise_final_end,
                    ..RenderOptions::new(*template, has_image)
                };
                self.tokenizer.encode(&turns, options)
            }
            Writing::Chat(template) => self.tokenizer.encode_chat(template, &turns, has_image),
        };
        let encoded = encoded.map_err(|error| (Rule::Template, error.to_string()))?;
        // Rows beyond the table would be zeros without a word.
        match encoded.ids.iter().find(|&&id| id >= self.vocabulary as i64) {
            None => Ok(encoded),
            Some(id) => {
                let detail =
                    format!("token {id} has no row in the model's embedding table of {} rows", self.vocabulary);
                Err((Rule::UnknownToken, detail))
            }
        }
    }

    fn pixels(&self, file: &Path) -> Result<Vec<f32>, (Rule, String)> {
        let picture = decode_file(file, &LIMITS).map_err(|error| (rule_of(&error), error.to_string()))?;
        if let Some((tiling, layout)) = self.tiling.as_ref().zip(self.layout([picture.width(), picture.height()])) {
            return Ok(self.images.tiled_pixels(&picture, tiling, layout));
        }
        self.images.pixels(&picture, file).map_err(|error| (rule_of(&error), error.to_string()))
    }

    fn layout(&self, [width, height]: [usize; 2]) -> Option<Layout> {
        self.tiling.as_ref()?.layout(width, height)
    }

    fn aligned(&self, record: &Record) -> bool {
        !self.only_coco || record.image.as_ref().is_some_and(|path| path.starts_with("coco"))
    }
}

fn writing(config: &Config) -> Result<Writing> {
    if let Some(template) = Template::from_name(config.data.template.name()) {
        return Ok(Writing::Known(template));
    }
    let template = ChatTemplate::from_dir(&config.model.path)?;
    if !template.ends_answers() {
        let file = template.path().display();
        log::warn!("the chat template in {file} ends answers without the end-of-sequence token, so none is learned");
    }
    Ok(Writing::Chat(Box::new(template)))
}

fn rule_of(error: &ImageError) -> Rule {
    match error {
        ImageError::Io { .. } => Rule::ImageUnreadable,
        ImageError::TooLarge { .. } => Rule::ImageTooLarge,
        _ => Rule::ImageBroken,
    }
}

impl From<TokenizerError> for Error {
    fn from(error: TokenizerError) -> Self {
        Self {
            kind: Kind::Model,
            what: "the model's tokenizer cannot be used".into(),
            place: String::new(),
            why: error.to_string(),
            hint: String::new(),
        }
    }
}
