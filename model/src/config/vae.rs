//! The variational autoencoder whose latents the reconstructive objective predicts.

use std::path::Path;

use serde_json::{Value, json};

use super::{ConfigError, Document, Section};

/// An `AutoencoderKL` as the diffusers library lays it out; FLUX's and Stable Diffusion's are of this class. Only its
/// encoder is described.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Channels of each block. Every block but the last halves the sides of the picture.
    pub channels: Vec<usize>,
    /// Residual layers of a block.
    pub layers_per_block: usize,
    /// Groups of channels that are normalised together.
    pub groups: usize,
    /// L, channels of a latent.
    pub latent_channels: usize,
    /// Whether the lowest resolution has an attention layer.
    pub mid_attention: bool,
    /// Whether a 1×1 convolution follows the encoder.
    pub quant_conv: bool,
    /// Factor that gives latents a deviation of about 1.
    pub scaling_factor: f64,
    /// Subtracted from a latent before it is scaled.
    pub shift_factor: f64,
}

impl VaeConfig {
    /// Reads `config.json` of a directory.
    ///
    /// # Errors
    /// The file is missing, is not JSON, or holds a setting that is wrong or not implemented.
    pub fn from_dir(dir: &Path) -> Result<Self, ConfigError> {
        Self::from_section(&Document::read(&dir.join("config.json"))?.root())
    }

    /// Reads the text of a `config.json`; `path` only appears in messages.
    ///
    /// # Errors
    /// As [`Self::from_dir`].
    pub fn from_json(path: &Path, json: &[u8]) -> Result<Self, ConfigError> {
        Self::from_section(&Document::parse(path, json)?.root())
    }

    /// Pixels along the side of a latent.
    pub fn reduction(&self) -> usize {
        1 << self.channels.len().saturating_sub(1)
    }

    fn from_section(s: &Section<'_>) -> Result<Self, ConfigError> {
        const CHANNELS: &str = "block_out_channels";
        s.refuse_unless("_class_name", json!("AutoencoderKL"))?;
        for (key, only) in [("in_channels", json!(3)), ("act_fn", json!("silu"))] {
            s.refuse_unless(key, only)?;
        }
        // Latents that are standardised channel by channel.
        if let Some(key) = ["latents_mean", "latents_std"].into_iter().find(|key| s.value(key).is_some()) {
            return Err(s.unsupported(key, "null"));
        }
        let config = Self {
            channels: channels(s, CHANNELS)?,
            layers_per_block: s.layers("layers_per_block", 1)?,
            groups: s.size("norm_num_groups", 32)?,
            latent_channels: s.size("latent_channels", 4)?,
            mid_attention: s.flag("mid_block_add_attention", true)?,
            quant_conv: s.flag("use_quant_conv", true)?,
            scaling_factor: s.positive("scaling_factor", 0.18215)?,
            shift_factor: s.number("shift_factor", 0.0)?,
        };
        let plain = |kind: &Value| kind.as_str() == Some("DownEncoderBlock2D");
        match s.value("down_block_types").map(Value::as_array) {
            None if config.channels.len() == 1 => {}
            Some(Some(kinds)) if kinds.len() == config.channels.len() && kinds.iter().all(plain) => {}
            _ => return Err(s.wrong("down_block_types", "a DownEncoderBlock2D for each of block_out_channels")),
        }
        for &channels in &config.channels {
            s.divisible((CHANNELS, channels), ("norm_num_groups", config.groups))?;
        }
        Ok(config)
    }
}

/// A short list of positive extents.
fn channels(s: &Section<'_>, key: &str) -> Result<Vec<usize>, ConfigError> {
    const MOST_BLOCKS: usize = 8;
    const MOST_CHANNELS: u64 = 1 << 14;
    let Some(value) = s.value(key) else { return Ok(vec![64]) };
    let extent = |x: &Value| x.as_u64().filter(|x| (1..=MOST_CHANNELS).contains(x)).map(|x| x as usize);
    let list: Option<Vec<usize>> = value.as_array().and_then(|list| list.iter().map(extent).collect());
    list.filter(|list| (1..=MOST_BLOCKS).contains(&list.len()))
        .ok_or_else(|| s.wrong(key, "a list of up to 8 positive integers"))
}
