//! Conversations: templates, tokens, labels.
//!
//! A record's turns are rendered into one prompt, by a template that is known here ([`render`]) or by the checkpoint's own
//! ([`ChatTemplate`]), the prompt is tokenised piece by piece around its
//! images, and a token becomes a target if its characters end inside an assistant's answer ([`Tokenizer::encode`]).

mod byte_level;
mod chat;
mod encode;
mod error;
mod jinja;
mod sentencepiece;
mod settings;
mod template;
mod tokenizer;

pub use chat::ChatTemplate;
pub use encode::{Encoded, IGNORED, IMAGE};
pub use error::{TextError, TokenizerError};
pub use template::{IMAGE_TAG, Prompt, RenderOptions, Template, Turn, render};
pub use tokenizer::Tokenizer;
