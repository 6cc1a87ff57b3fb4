//! Decoder language models: LLaMA (also Vicuna) and Qwen2.

use serde_json::json;

use super::{Activation, ConfigError, Section};

/// Which library class the decoder is. The two share one network; they differ in defaults and biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextFamily {
    /// `model_type` "llama".
    Llama,
    /// `model_type` "qwen2": query, key and value always have a bias, the output projection never.
    Qwen2,
}

impl TextFamily {
    /// Name in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            TextFamily::Llama => "llama",
            TextFamily::Qwen2 => "qwen2",
        }
    }
}

/// A pre-norm decoder with rotary attention and a gated MLP (SiLU).
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Library class.
    pub family: TextFamily,
    /// Rows of the embedding table and of the head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; query head `q` reads key/value head `q / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Width of one head; `hidden_size / heads` unless the file says otherwise.
    pub head_dim: usize,
    /// Added to the mean square in every RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Positions the model was made for.
    pub max_position_embeddings: usize,
    /// Whether the query, key and value projections have a bias.
    pub qkv_bias: bool,
    /// Whether the attention output projection has a bias.
    pub output_bias: bool,
    /// Whether the head shares the embedding table.
    pub tie_word_embeddings: bool,
}

impl TextConfig {
    /// Rows of `q_proj`: `heads * head_dim`.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Rows of `k_proj` and `v_proj`: `kv_heads * head_dim`.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Reads the `text_config` section; `None` means the section is missing and every key takes its default.
    pub(crate) fn from_section(section: Option<Section<'_>>) -> Result<Self, ConfigError> {
        let Some(s) = section else {
            return Ok(Self::defaults(TextFamily::Llama));
        };
        let family = match s.text("model_type")? {
            None | Some("llama") => TextFamily::Llama,
            Some("qwen2") => TextFamily::Qwen2,
            Some(_) => return Err(s.unsupported("model_type", "llama, qwen2")),
        };
        Self::of_family(family, &s)
    }

    /// Reads a section whose `model_type` has been looked at.
    pub(super) fn of_family(family: TextFamily, s: &Section<'_>) -> Result<Self, ConfigError> {
        let default = Self::defaults(family);
        refuse_unimplemented(s, family)?;

        let hidden_size = s.size("hidden_size", default.hidden_size)?;
        let heads = s.size("num_attention_heads", default.heads)?;
        let kv_heads = match family {
            TextFamily::Llama => s.size("num_key_value_heads", heads)?,
            TextFamily::Qwen2 => s.size("num_key_value_heads", default.kv_heads)?,
        };
        let head_dim = match s.optional_size("head_dim")? {
            Some(width) => width,
            None => {
                s.divisible(("hidden_size", hidden_size), ("num_attention_heads", heads))?;
                hidden_size / heads
            }
        };
        s.divisible(("num_attention_heads", heads), ("num_key_value_heads", kv_heads))?;
        if !head_dim.is_multiple_of(2) {
            return Err(s.inconsistent(format!("the head width {head_dim} is odd; rotary embedding needs pairs")));
        }
        let attention_bias = match family {
            TextFamily::Llama => s.flag("attention_bias", false)?,
            TextFamily::Qwen2 => false,
        };
        Ok(Self {
            family,
            vocab_size: s.size("vocab_size", default.vocab_size)?,
            hidden_size,
            intermediate_size: s.size("intermediate_size", default.intermediate_size)?,
            layers: s.layers("num_hidden_layers", default.layers)?,
            heads,
            kv_heads,
            head_dim,
            rms_norm_eps: s.positive("rms_norm_eps", default.rms_norm_eps)?,
            rope_theta: rope_theta(s, default.rope_theta)?,
            max_position_embeddings: s.size("max_position_embeddings", default.max_position_embeddings)?,
            qkv_bias: default.qkv_bias || attention_bias,
            output_bias: attention_bias,
            tie_word_embeddings: s.flag("tie_word_embeddings", false)?,
        })
    }

    /// The library's values for a file without keys.
    fn defaults(family: TextFamily) -> Self {
        let llama = Self {
            family: TextFamily::Llama,
            vocab_size: 32000,
            hidden_size: 4096,
            intermediate_size: 11008,
            layers: 32,
            heads: 32,
            kv_heads: 32,
            head_dim: 128,
            rms_norm_eps: 1e-6,
            rope_theta: 10000.0,
            max_position_embeddings: 2048,
            qkv_bias: false,
            output_bias: false,
            tie_word_embeddings: false,
        };
        match family {
            TextFamily::Llama => llama,
            TextFamily::Qwen2 => Self {
                family,
                vocab_size: 151_936,
                intermediate_size: 22016,
                max_position_embeddings: 32768,
                qkv_bias: true,
                ..llama
            },
        }
    }
}

/// Refuses settings that change the arithmetic and have no implementation here.
fn refuse_unimplemented(s: &Section<'_>, family: TextFamily) -> Result<(), ConfigError> {
    s.activation("hidden_act", Activation::Silu, &[Activation::Silu])?;
    s.refuse_unless("mlp_bias", json!(false))?;
    s.refuse_unless("attention_dropout", json!(0.0))?;
    s.refuse_unless("partial_rotary_factor", json!(1.0))?;
    if s.value("quantization_config").is_some() {
        return Err(s.unsupported("quantization_config", "checkpoints in f32, f16 or bf16"));
    }
    match family {
        TextFamily::Llama => {}
        // `sliding_window` alone says nothing: the library ignores it while `use_sliding_window` is false.
        TextFamily::Qwen2 => s.refuse_unless("use_sliding_window", json!(false))?,
    }
    if let Some(kinds) = s.value("layer_types") {
        let full = kinds.as_array().is_some_and(|list| list.iter().all(|kind| kind == "full_attention"));
        if !full {
            return Err(s.unsupported("layer_types", "full_attention in every layer"));
        }
    }
    Ok(())
}

/// The rotary base: `rope_parameters.rope_theta` in newer files, `rope_theta` in older ones. Scaled variants of the
/// rotary embedding are refused.
fn rope_theta(s: &Section<'_>, default: f64) -> Result<f64, ConfigError> {
    let mut theta = s.positive("rope_theta", default)?;
    for key in ["rope_scaling", "rope_parameters"] {
        let Some(rope) = s.section(key)? else { continue };
        for kind in ["rope_type", "type"] {
            match rope.text(kind)? {
                None | Some("default") => {}
                Some(_) => return Err(rope.unsupported(kind, "default (unscaled rotary embedding)")),
            }
        }
        rope.refuse_unless("partial_rotary_factor", json!(1.0))?;
        theta = rope.positive("rope_theta", theta)?;
    }
    Ok(theta)
}
