//! The composed model: vision tower, projector, decoder.

use std::path::Path;

use serde_json::Value;

use crate::image::Tiling;

use super::{Activation, ConfigError, Document, Section, TextConfig, VisionConfig, VisionFamily, original};

/// Which rows of the chosen hidden state become visual tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FeatureSelect {
    /// `default`: the patches behind a class token.
    Patches,
    /// `full`: all tokens, the class token among them if there is one.
    Full,
}

/// A LLaVA model in the Hugging Face layout (`model_type` "llava" or "llava_next").
#[derive(Clone, Debug, PartialEq)]
pub struct LlavaConfig {
    /// The decoder.
    pub text: TextConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// Token id that stands for a visual token in the library's own sequences.
    pub image_token_index: i64,
    /// Hidden states of the tower that the projector sees side by side, at least one; state 0 is what enters the first
    /// block, state `k` comes out of block `k`. None is above `vision.layers`.
    pub vision_layers: Vec<usize>,
    /// Rows of these states that are used.
    pub feature_select: FeatureSelect,
    /// Activation between the projector's two linear layers.
    pub projector_hidden_act: Activation,
    /// Whether the projector's linear layers have a bias.
    pub projector_bias: bool,
    /// Canvases of a LLaVA-NeXT (`model_type` "llava_next"), in pixels; `None` for a model that sees every picture as one
    /// square.
    pub tiling: Option<Tiling>,
    /// `image_seq_length` as stored. Informational: [`Self::visual_tokens`] is what the tower yields.
    pub image_seq_length: usize,
}

impl LlavaConfig {
    /// Blocks of the tower that are run.
    pub fn vision_blocks(&self) -> usize {
        self.vision_layers.iter().copied().max().unwrap_or(0)
    }

    /// Width of what the projector sees: that of the tower for each of the states.
    pub fn feature_width(&self) -> usize {
        self.vision_layers.len() * self.vision.hidden_size
    }

    /// Whether every visual token is a patch, so that together they are a square grid.
    pub fn visual_grid(&self) -> Option<usize> {
        (self.visual_tokens() == self.vision.patches()).then(|| self.vision.grid())
    }

    /// Visual tokens of one picture, or of one tile of a LLaVA-NeXT's.
    pub fn visual_tokens(&self) -> usize {
        match self.feature_select {
            FeatureSelect::Patches => self.vision.patches(),
            FeatureSelect::Full => self.vision.positions(),
        }
    }

    /// Whether the head shares the embedding table (then the checkpoint need not hold `lm_head.weight`).
    pub fn tied_head(&self) -> bool {
        self.text.tie_word_embeddings
    }

    /// Reads `config.json` of a model directory.
    ///
    /// # Errors
    /// The file is missing, is not JSON, or holds a setting that is wrong, contradictory or not implemented.
    pub fn from_dir(dir: &Path) -> Result<Self, ConfigError> {
        Self::from_parts(dir, None)
    }

    /// The same where the vision tower may come from a model of its own: for a directory in the original layout, or a
    /// language model without any. A tower of its own goes before the one that the model names.
    ///
    /// # Errors
    /// As [`Self::from_dir`], for both directories.
    pub fn from_parts(dir: &Path, vision: Option<&Path>) -> Result<Self, ConfigError> {
        let document = Document::read(&dir.join("config.json"))?;
        let tower = vision.map(|dir| Document::read(&dir.join("config.json"))).transpose()?;
        let tower = tower.as_ref().map(|document| tower_section(document.root())).transpose()?;
        Self::from_section(&document.root(), tower.as_ref())
    }

    /// Reads the text of a `config.json`; `path` only appears in messages.
    ///
    /// # Errors
    /// As [`Self::from_dir`].
    pub fn from_json(path: &Path, json: &[u8]) -> Result<Self, ConfigError> {
        let document = Document::parse(path, json)?;
        Self::from_section(&document.root(), None)
    }

    fn from_section(s: &Section<'_>, tower: Option<&Section<'_>>) -> Result<Self, ConfigError> {
        const LAYOUT: &str =
            "llava, llava_next, llava_llama, llava_qwen2, or llama or qwen2 with a vision tower of its own";
        if let Some(family) = original::family(s)? {
            return original::read(s, family, tower);
        }
        let is_next = match s.text("model_type")? {
            Some("llava") => false,
            Some("llava_next") => true,
            Some(_) => return Err(s.unsupported("model_type", LAYOUT)),
            None => return Err(s.wrong("model_type", LAYOUT)),
        };
        if s.value("quantization_config").is_some() {
            return Err(s.unsupported("quantization_config", "checkpoints in f32, f16 or bf16"));
        }
        let mut text = TextConfig::from_section(s.section("text_config")?)?;
        // The library ties the head when either level says so.
        text.tie_word_embeddings |= s.flag("tie_word_embeddings", false)?;
        let vision = match (tower, s.section("vision_config")?) {
            (Some(section), _) => VisionConfig::from_section(section)?,
            (None, Some(section)) => VisionConfig::from_section(&section)?,
            (None, None) => VisionConfig::clip_large_336(),
        };
        let feature_select = match s.text("vision_feature_select_strategy")? {
            None | Some("default") => FeatureSelect::Patches,
            Some("full") => FeatureSelect::Full,
            Some(_) => return Err(s.unsupported("vision_feature_select_strategy", "default, full")),
        };
        if vision.family == VisionFamily::Siglip && feature_select == FeatureSelect::Patches {
            // The library would leave out the first patch, of which nobody would hear.
            const KEY: &str = "vision_feature_select_strategy";
            return Err(s.unsupported(KEY, "full (a SigLIP tower has no class token that `default` could leave out)"));
        }
        if is_next && feature_select == FeatureSelect::Full && vision.family == VisionFamily::Clip {
            // A class token has no place in the map of patches.
            return Err(s.unsupported("vision_feature_select_strategy", "default, in a llava_next with a CLIP tower"));
        }
        let index_key = if s.value("image_token_index").is_some() { "image_token_index" } else { "image_token_id" };
        Ok(Self {
            tiling: if is_next { Some(tiling(s, vision.image_size)?) } else { None },
            vision_layers: vision_layers(s, "vision_feature_layer", vision.layers)?,
            text,
            vision,
            image_token_index: s.integer(index_key, 32000)?,
            feature_select,
            projector_hidden_act: s.activation("projector_hidden_act", Activation::Gelu, &Activation::ALL)?,
            projector_bias: s.flag("multimodal_projector_bias", true)?,
            image_seq_length: s.size("image_seq_length", 576)?,
        })
    }
}

/// `image_grid_pinpoints`: height and width of every canvas.
fn tiling(s: &Section<'_>, side: usize) -> Result<Tiling, ConfigError> {
    const KEY: &str = "image_grid_pinpoints";
    let Some(value) = s.value(KEY) else {
        let canvases = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]];
        return Ok(Tiling { canvases: canvases.to_vec(), side });
    };
    let extent = |x: &Value| {
        let x = x.as_u64().map(|x| x as usize);
        x.filter(|&x| x.is_multiple_of(side) && (side..=64 * side).contains(&x))
    };
    let canvas = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
        Some([height, width]) => Some([extent(height)?, extent(width)?]),
        _ => None,
    };
    let canvases: Option<Vec<_>> = value.as_array().and_then(|list| list.iter().map(canvas).collect());
    match canvases {
        Some(canvases) if !canvases.is_empty() => Ok(Tiling { canvases, side }),
        _ => Err(s.wrong(KEY, &format!("a list of [height, width] in multiples of {side}"))),
    }
}

/// The configuration of the vision tower in the file of a model of its own, which may have a text tower beside it.
fn tower_section(root: Section<'_>) -> Result<Section<'_>, ConfigError> {
    Ok(root.section("vision_config")?.unwrap_or(root))
}

/// The feature layer under `key`, one or a list of them, as numbers of hidden states: it indexes the tuple of
/// `layers + 1` states, from the end when negative.
pub(super) fn vision_layers(s: &Section<'_>, key: &str, layers: usize) -> Result<Vec<usize>, ConfigError> {
    let listed = match s.value(key) {
        Some(Value::Array(list)) if !list.is_empty() => {
            let numbers: Option<Vec<i64>> = list.iter().map(Value::as_i64).collect();
            numbers.ok_or_else(|| s.wrong(key, "an integer or a list of them"))?
        }
        _ => vec![s.integer(key, -2)?],
    };
    let states = layers as i64 + 1;
    let index = |layer: i64| {
        let index = if layer < 0 { states + layer } else { layer };
        let problem =
            || format!("`{key}` = {layer} is outside the {states} hidden states of a tower of {layers} blocks");
        if (0..states).contains(&index) { Ok(index as usize) } else { Err(s.inconsistent(problem())) }
    };
    listed.into_iter().map(index).collect()
}
