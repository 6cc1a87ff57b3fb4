//! Model configurations as published, in the Hugging Face layout and in that of the original LLaVA code.
//!
//! Published files are sparse: a missing key takes the default of the library's configuration class, so every struct
//! here is complete. A setting that changes the arithmetic and is not implemented is an error naming key and value;
//! keys that do not concern training are ignored.

mod dinov2;
mod error;
mod llava;
mod original;
mod processor;
mod section;
mod text;
mod vae;
mod vision;

pub use dinov2::{Dinov2Config, Dinov2Ffn};
pub use error::ConfigError;
pub use llava::{FeatureSelect, LlavaConfig};
pub use processor::{
    Filter, IMAGENET_MEAN, IMAGENET_STD, ImageProcessorConfig, ImageSize, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD,
};
pub use text::{TextConfig, TextFamily};
pub use vae::VaeConfig;
pub use vision::{VisionConfig, VisionFamily};

pub(crate) use error::io_error;
pub(crate) use section::{Document, Section};

/// Element-wise activation functions, under the names that configuration files use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `gelu`: `0.5 x (1 + erf(x / sqrt 2))`.
    Gelu,
    /// `gelu_pytorch_tanh`: `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
    GeluTanh,
    /// `quick_gelu`: `x sigmoid(1.702 x)`.
    QuickGelu,
    /// `silu`: `x sigmoid(x)`.
    Silu,
}

impl Activation {
    /// Every activation, in declaration order.
    pub const ALL: [Activation; 4] = [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Silu];

    /// Name in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_pytorch_tanh",
            Activation::QuickGelu => "quick_gelu",
            Activation::Silu => "silu",
        }
    }
}
