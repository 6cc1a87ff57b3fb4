//! Adapter directories: the trained part of a model.
//!
//! | file | holds |
//! | --- | --- |
//! | `adapter_config.json`, `adapter_model.safetensors` | LoRA, as PEFT writes it for the library's LLaVA model |
//! | `mm_projector.safetensors` | the multi-modal projector |
//! | `alignment_projector.safetensors` | the alignment projectors |
//! | `residual_projector.safetensors` | the residual's adapter |
//! | `denoiser.safetensors` | the denoiser of the reconstructive objective |
//! | `residual_config.json` | how visual tokens are added again inside the decoder, where they are |
//!
//! Those are what is written; the first stage adds the projector as the original code reads it, `mm_projector.bin`
//! ([`Adapter::original_projector`]). What the original LLaVA and VIRAL code writes is read too: the same files in PyTorch's
//! format (`.bin`), under their own tensor names, and `non_lora_trainables.bin`, which holds everything but LoRA.
//!
//! In memory tensors have their canonical names; the files' keys are those of [`adapter_key`](crate::graph::adapter_key).
//! Reading is all or nothing: a key that matches no tensor, and a tensor without a key, are errors that name it.

mod config;
mod error;
mod files;
mod residual;
mod targets;

pub use config::LoraConfig;
pub use error::AdapterError;
pub use files::{Adapter, AdapterFile, Parameter};
pub use residual::ResidualConfig;
