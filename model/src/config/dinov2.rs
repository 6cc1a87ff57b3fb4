//! DINOv2, with and without register tokens.

use std::path::Path;

use serde_json::json;

use super::{Activation, ConfigError, Document, Section};

/// A pre-norm vision transformer with LayerScale and a class token; its features are the final LayerNorm's patch rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Dinov2Config {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// The feed-forward part of a block.
    pub ffn: Dinov2Ffn,
    /// Whether query, key and value have a bias.
    pub qkv_bias: bool,
    /// Side of the square input that the stored position table was made for, in pixels.
    pub image_size: usize,
    /// Side of a square patch in pixels.
    pub patch_size: usize,
    /// Register tokens between class token and patches; 0 for `model_type` "dinov2".
    pub register_tokens: usize,
    /// Added to the variance in every LayerNorm.
    pub layer_norm_eps: f64,
    /// Value that LayerScale vectors are initialised with (only matters for fresh models).
    pub layerscale_value: f64,
}

/// Feed-forward part of a DINOv2 block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dinov2Ffn {
    /// `fc2(act(fc1(x)))`.
    Mlp {
        /// Rows of `fc1`.
        hidden: usize,
        /// Activation between the layers.
        act: Activation,
    },
    /// `weights_out(silu(a) * b)` with `[a; b] = weights_in(x)`.
    SwiGlu {
        /// Width of `a` and of `b`.
        hidden: usize,
    },
}

impl Dinov2Ffn {
    /// The part that is as large as an MLP of `wide` units. A gated one has two thirds of them, rounded up to a multiple
    /// of 8.
    pub(crate) fn of_width(wide: usize, act: Activation, is_gated: bool) -> Self {
        match is_gated {
            true => Self::SwiGlu { hidden: ((wide as f64 * 2.0 / 3.0) as usize).div_ceil(8) * 8 },
            false => Self::Mlp { hidden: wide, act },
        }
    }
}

impl Dinov2Config {
    /// Patches along one side of the stored position table.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Rows of the stored position table: the class token and the patches.
    pub fn positions(&self) -> usize {
        self.grid() * self.grid() + 1
    }

    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.heads
    }

    /// Reads `config.json` of a model directory.
    ///
    /// # Errors
    /// The file is missing, is not JSON, or holds a setting that is wrong or not implemented.
    pub fn from_dir(dir: &Path) -> Result<Self, ConfigError> {
        let document = Document::read(&dir.join("config.json"))?;
        Self::from_section(&document.root())
    }

    /// Reads the text of a `config.json`; `path` only appears in messages.
    ///
    /// # Errors
    /// As [`Self::from_dir`].
    pub fn from_json(path: &Path, json: &[u8]) -> Result<Self, ConfigError> {
        let document = Document::parse(path, json)?;
        Self::from_section(&document.root())
    }

    pub(crate) fn from_section(s: &Section<'_>) -> Result<Self, ConfigError> {
        let (default_patch, register_tokens) = match s.text("model_type")? {
            Some("dinov2") => (14, 0),
            Some("dinov2_with_registers") => (16, s.size("num_register_tokens", 4)?),
            Some(_) => return Err(s.unsupported("model_type", "dinov2, dinov2_with_registers")),
            None => return Err(s.wrong("model_type", "dinov2 or dinov2_with_registers")),
        };
        s.refuse_unless("num_channels", json!(3))?;
        let hidden_size = s.size("hidden_size", 768)?;
        let act = s.activation("hidden_act", Activation::Gelu, &[Activation::Gelu, Activation::GeluTanh])?;
        let mlp_ratio = s.positive("mlp_ratio", 4.0)?;
        let wide = (hidden_size as f64 * mlp_ratio) as usize;
        let ffn = Dinov2Ffn::of_width(wide, act, s.flag("use_swiglu_ffn", false)?);
        let config = Self {
            hidden_size,
            layers: s.layers("num_hidden_layers", 12)?,
            heads: s.size("num_attention_heads", 12)?,
            ffn,
            qkv_bias: s.flag("qkv_bias", true)?,
            image_size: s.side("image_size", 224)?,
            patch_size: s.side("patch_size", default_patch)?,
            register_tokens,
            layer_norm_eps: s.positive("layer_norm_eps", 1e-6)?,
            layerscale_value: s.number("layerscale_value", 1.0)?,
        };
        s.divisible(("hidden_size", hidden_size), ("num_attention_heads", config.heads))?;
        s.divisible(("image_size", config.image_size), ("patch_size", config.patch_size))?;
        if !(1..=1 << 24).contains(&wide) {
            return Err(s.wrong("mlp_ratio", "a ratio that gives a sensible width"));
        }
        Ok(config)
    }
}
