//! Ids and labels of a conversation.

use super::{IMAGE_TAG, Prompt, RenderOptions, TextError, Tokenizer, Turn, render};

/// Label of a position that is no target.
pub const IGNORED: i64 = -100;

/// Stands in the ids for all visual tokens of one picture.
pub const IMAGE: i64 = -200;

/// A tokenised conversation, before pictures are spliced in and before truncation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids; [`IMAGE`] where a picture stands.
    pub ids: Vec<i64>,
    /// For each id itself if it is a target, else [`IGNORED`]. Not shifted.
    pub labels: Vec<i64>,
}

impl Encoded {
    /// Pictures in the sequence.
    pub fn images(&self) -> usize {
        self.ids.iter().filter(|id| **id == IMAGE).count()
    }

    /// Targets in the sequence.
    pub fn targets(&self) -> usize {
        self.labels.iter().filter(|label| **label != IGNORED).count()
    }
}

impl Tokenizer {
    /// Renders and tokenises a conversation.
    ///
    /// # Errors
    /// The conversation does not fit the template, or the tokenizer fails on it.
    pub fn encode(&self, turns: &[Turn<'_>], options: RenderOptions) -> Result<Encoded, TextError> {
        self.encode_prompt(&render(turns, options)?)
    }

    /// Tokenises a prompt. Each piece of text is tokenised alone; the beginning-of-sequence token comes once, in front.
    /// A token is a target if its characters end inside an answer: behind its first position, and not behind its last.
    ///
    /// # Errors
    /// The tokenizer fails on a piece.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Encoded, TextError> {
        let mut encoded = Encoded { ids: Vec::new(), labels: Vec::new() };
        let mut push = |id: i64, is_target: bool| {
            encoded.ids.push(id);
            encoded.labels.push(if is_target { id } else { IGNORED });
        };
        self.prefix().iter().for_each(|id| push(i64::from(*id), false));
        let mut offset = 0;
        for (index, piece) in prompt.pieces.iter().enumerate() {
            if index > 0 {
                push(IMAGE, false);
                offset += IMAGE_TAG.len();
            }
            for token in self.tokens(piece)? {
                let end = offset + token.end;
                let is_target = prompt.answers.iter().any(|answer| answer.start < end && end <= answer.end);
                push(i64::from(token.id), is_target);
            }
            offset += piece.chars().count();
        }
        Ok(encoded)
    }
}
