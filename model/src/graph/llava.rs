//! The two ends of the decoder: embeddings of text and pictures in one sequence, and logits where they are needed.

use viral_compiler::{Graph, Value};

use super::leaf::Trainable;
use crate::config::TextConfig;

/// Index that picks no row: [`embed`] and [`logits_at`] give zeros for it.
pub const NO_ROW: u32 = u32::MAX;

/// The pictures' part of a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Visual {
    /// Visual tokens of all pictures, `(I·N, D)`.
    pub tokens: Value,
    /// For each position of the batch the visual token that stands there, or [`NO_ROW`]: `u32[B·T]`. No token stands at
    /// two positions.
    pub index: Value,
}

/// Visual tokens of the tiles of a LLaVA-NeXT, `(tiles·N, D)`, with the learned end of a row behind them: `(tiles·N + 1, D)`.
pub fn with_newline(g: &mut Graph, config: &TextConfig, tokens: Value) -> Value {
    let newline = g.weight("model.image_newline", &[config.hidden_size]);
    let newline = g.reshape(newline, &[1, config.hidden_size]);
    g.concat(&[tokens, newline], 0)
}

/// The decoder's input `(B, T, D)`: the text token's row of the embedding table plus the visual token.
///
/// `token_ids u32[B·T]` holds [`NO_ROW`] where a visual token or padding stands, so one of the two is always zero.
pub fn embed(
    g: &mut Graph,
    config: &TextConfig,
    trainable: Trainable,
    [batch, tokens]: [usize; 2],
    token_ids: Value,
    visual: Option<Visual>,
) -> Value {
    g.scoped("embed_tokens", |g| {
        let table = embedding_table(g, config, trainable);
        let mut h = g.gather(table, token_ids, false);
        if let Some(visual) = visual {
            let rows = g.gather(visual.tokens, visual.index, true);
            h = g.add(h, rows);
        }
        g.reshape(h, &[batch, tokens, config.hidden_size])
    })
}

/// Logits `(S, V)` of the rows of the normalised final state `h (B, T, D)` that `positions u32[S]` picks out of all `B·T`,
/// each at most once.
pub fn logits_at(g: &mut Graph, config: &TextConfig, trainable: Trainable, h: Value, positions: Value) -> Value {
    g.scoped("lm_head", |g| {
        let rows = rows_at(g, h, positions);
        let head = if config.tie_word_embeddings {
            embedding_table(g, config, trainable)
        } else {
            trainable.leaf(g, "lm_head.weight", &[config.vocab_size, config.hidden_size])
        };
        g.linear(rows, head, None)
    })
}

/// Rows `(S, D)` of a state `h (B, T, D)` at `positions u32[S]` out of all `B·T`, each at most once; zeros for [`NO_ROW`].
pub fn rows_at(g: &mut Graph, h: Value, positions: Value) -> Value {
    let (flat, _) = g.flatten_rows(h);
    g.gather(flat, positions, true)
}

/// A row for each token, `(V, D)`.
fn embedding_table(g: &mut Graph, config: &TextConfig, trainable: Trainable) -> Value {
    trainable.leaf(g, "model.language_model.embed_tokens.weight", &[config.vocab_size, config.hidden_size])
}
