//! Ids and labels of a conversation.

use super::tokenizer::Token;
use super::{ChatTemplate, IMAGE_TAG, Prompt, RenderOptions, TextError, Tokenizer, Turn, render};

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

    /// Renders a conversation with the checkpoint's own template and tokenises it as the library does: where the tokenizer
    /// has a token for the image tag, all in one, so that text behind a picture does not begin anew. The
    /// beginning-of-sequence token stands in front unless the template writes it.
    ///
    /// # Errors
    /// The template fails on the conversation, or the tokenizer does.
    pub fn encode_chat(
        &self,
        template: &ChatTemplate,
        turns: &[Turn<'_>],
        has_image: bool,
    ) -> Result<Encoded, TextError> {
        let prompt = template.render(turns, has_image)?;
        let Some(image) = self.id_of(IMAGE_TAG).filter(|_| has_image) else {
            return self.encode_pieces(&prompt, true);
        };
        let tokens = self.tokens(&prompt.pieces.join(IMAGE_TAG))?;
        let mut encoded = self.opened(&tokens, true);
        for token in tokens {
            let id = if token.id == image { IMAGE } else { i64::from(token.id) };
            encoded.push(id, id != IMAGE && prompt.is_target(token.end));
        }
        Ok(encoded)
    }

    /// Tokenises a prompt. Each piece of text is tokenised alone; the beginning-of-sequence token comes once, in front.
    /// A token is a target if its characters end inside an answer: behind its first position, and not behind its last.
    ///
    /// # Errors
    /// The tokenizer fails on a piece.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Encoded, TextError> {
        self.encode_pieces(prompt, false)
    }

    fn encode_pieces(&self, prompt: &Prompt, may_be_opened: bool) -> Result<Encoded, TextError> {
        let pieces = prompt.pieces.iter().map(|piece| self.tokens(piece)).collect::<Result<Vec<_>, _>>()?;
        let mut encoded = self.opened(pieces.first().map_or(&[], Vec::as_slice), may_be_opened);
        let mut offset = 0;
        for (index, (piece, tokens)) in prompt.pieces.iter().zip(&pieces).enumerate() {
            if index > 0 {
                encoded.push(IMAGE, false);
                offset += IMAGE_TAG.len();
            }
            for token in tokens {
                encoded.push(i64::from(token.id), prompt.is_target(offset + token.end));
            }
            offset += piece.chars().count();
        }
        Ok(encoded)
    }

    /// The beginning of a sequence whose text begins with these tokens, which may hold the tokens in front already.
    fn opened(&self, first: &[Token], may_be_opened: bool) -> Encoded {
        let mut encoded = Encoded { ids: Vec::new(), labels: Vec::new() };
        let start = first.iter().map(|token| token.id).take(self.prefix().len());
        if !(may_be_opened && start.eq(self.prefix().iter().copied())) {
            self.prefix().iter().for_each(|id| encoded.push(i64::from(*id), false));
        }
        encoded
    }
}

impl Encoded {
    fn push(&mut self, id: i64, is_target: bool) {
        self.ids.push(id);
        self.labels.push(if is_target { id } else { IGNORED });
    }
}

impl Prompt {
    /// Whether the token whose characters end here is a target.
    fn is_target(&self, end: usize) -> bool {
        self.answers.iter().any(|answer| answer.start < end && end <= answer.end)
    }
}
