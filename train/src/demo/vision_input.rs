//! How a model sees pictures: what its files say about it.

use serde_json::{Value, json};

use super::parts::Encoder;

/// How a model sees pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VisionInput {
    /// LLaVA: as one square.
    Square,
    /// LLaVA-NeXT: as one square, and in tiles.
    Tiles,
}

/// Rows and columns of tiles that LLaVA-NeXT may cut a picture into.
const GRIDS: [[u64; 2]; 5] = [[1, 2], [2, 1], [2, 2], [3, 1], [1, 3]];

impl VisionInput {
    /// The keys of the model's `config.json` that say so; a square, or a tile, has `side` pixels a side.
    pub(super) fn model(self, side: u64) -> Value {
        match self {
            Self::Square => json!({"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava"}),
            Self::Tiles => json!({
                "architectures": ["LlavaNextForConditionalGeneration"],
                "model_type": "llava_next",
                "image_grid_pinpoints": GRIDS.map(|grid| grid.map(|tiles| tiles * side)),
                "use_image_newline_parameter": true,
            }),
        }
    }

    /// The image processor's settings.
    pub(super) fn processor(self, encoder: Encoder, side: usize) -> Value {
        match self {
            Self::Square => encoder.processor("CLIPImageProcessor", side),
            Self::Tiles => {
                let mut settings = encoder.processor("LlavaNextImageProcessor", side);
                settings["image_grid_pinpoints"] = json!(GRIDS.map(|grid| grid.map(|tiles| tiles * side as u64)));
                settings
            }
        }
    }

    /// `processor_class` of the tokenizer and the processor.
    pub(super) fn processor_class(self) -> &'static str {
        match self {
            Self::Square => "LlavaProcessor",
            Self::Tiles => "LlavaNextProcessor",
        }
    }

    /// `train.max_length` of a published recipe: five tiles are almost 3,000 tokens.
    pub(super) fn max_length(self) -> usize {
        match self {
            Self::Square => 2048,
            Self::Tiles => 4096,
        }
    }
}
