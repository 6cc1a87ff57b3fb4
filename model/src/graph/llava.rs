//! The two ends of the decoder: embeddings of text and pictures in one sequence, and logits where they are needed.

use viral_compiler::types::DType;
use viral_compiler::{Graph, Value, rows};

use super::leaf::Trainable;
use crate::config::{LlavaConfig, TextConfig};

/// Index that picks no row: [`embed`] and [`logits_at`] give zeros for it.
pub const NO_ROW: u32 = u32::MAX;

/// Index of the learned vector that ends a row of a LLaVA-NeXT's patches. It may stand at any number of positions.
pub const NEWLINE: u32 = u32::MAX - 1;

/// The pictures' part of a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Visual {
    /// Visual tokens of all pictures and tiles, `((I+J)·N, D)`.
    pub tokens: Value,
    /// For each position of the batch the visual token that stands there, [`NEWLINE`] or [`NO_ROW`]: `u32[B·T]`. No token
    /// stands at two positions.
    pub index: Value,
    /// What stands at [`NEWLINE`], `(D)`, in a model that has it; zeros stand there otherwise.
    pub newline: Option<Value>,
}

impl Visual {
    /// What stands at each position, `(B·T, D)`; zeros where there is nothing visual.
    pub fn rows(&self, g: &mut Graph) -> Value {
        // An index beyond the tokens picks none of them.
        let rows = g.gather(self.tokens, self.index, true);
        let Some(newline) = self.newline else { return rows };
        let shape = g.shape(rows).to_vec();
        let positions = g.shape(self.index).to_vec();
        let here = g.constant(DType::U32, f64::from(NEWLINE), &positions);
        let is_newline = g.equal(self.index, here);
        let is_newline = g.reshape(is_newline, &[positions.iter().product(), 1]);
        let is_newline = g.expand(is_newline, &shape);
        let newline = g.expand(newline, &shape);
        g.select(is_newline, newline, rows)
    }
}

/// The learned end of a row of patches, where the model has one. // (D)
pub fn newline(g: &mut Graph, config: &LlavaConfig, trainable: Trainable) -> Option<Value> {
    config.tiling.is_some().then(|| trainable.leaf(g, "model.image_newline", &[config.text.hidden_size]))
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
            let rows = visual.rows(g);
            h = g.add(h, rows);
        }
        g.reshape(h, &[batch, tokens, config.hidden_size])
    })
}

/// Logits `(S, V)` of the rows of the normalised final state `h (B, U, D)` that `positions u32[S]` picks out of all `B·U`,
/// each at most once. What leads to `h` is computed for these rows only, as far as nothing else reads it.
pub fn logits_at(g: &mut Graph, config: &TextConfig, trainable: Trainable, h: Value, positions: Value) -> Value {
    g.scoped("lm_head", |g| {
        let (flat, _) = g.flatten_rows(h);
        let rows = rows::at(g, flat, positions);
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use viral_compiler::eval::evaluate_outputs;
    use viral_compiler::grad::gradients;
    use viral_compiler::tensor::Tensor;
    use viral_compiler::types::TensorType;

    use super::*;

    /// The newline stands where its index says, and its gradient is the sum over all these places.
    #[test]
    fn a_newline_may_stand_at_many_positions() {
        let mut g = Graph::new();
        let tokens = g.param("tokens", &[2, 3]);
        let index = g.input("index", DType::U32, &[5]);
        let newline = g.param("newline", &[3]);
        let rows = Visual { tokens, index, newline: Some(newline) }.rows(&mut g);
        let weights = g.input("weights", DType::F32, &[5, 3]);
        let loss = g.mul(rows, weights);
        let loss = g.sum_all(loss);
        let gradients = gradients(&mut g, loss, &[tokens, newline]);
        g.output("rows", rows);
        g.output("tokens.grad", gradients[0].unwrap());
        g.output("newline.grad", gradients[1].unwrap());
        g.verify().unwrap();
        let [newline, nothing] = [NEWLINE, NO_ROW].map(f64::from);
        let leaves = HashMap::from([
            ("tokens".into(), Tensor::from_fn(&TensorType::f32([2, 3]), |at| (1 + at[0]) as f64)),
            ("newline".into(), Tensor::from_fn(&TensorType::f32([3]), |_| 9.0)),
            ("index".into(), Tensor::new(TensorType::u32([5]), vec![newline, 1.0, nothing, newline, 0.0])),
            ("weights".into(), Tensor::from_fn(&TensorType::f32([5, 3]), |at| 10f64.powi(at[0] as i32))),
        ]);
        let found = evaluate_outputs(&g, &leaves).unwrap();
        let rows: Vec<f64> = found["rows"].data.iter().step_by(3).copied().collect();
        assert_eq!(rows, [9.0, 2.0, 0.0, 9.0, 1.0]);
        assert_eq!(found["tokens.grad"].data, [1e4, 1e4, 1e4, 10.0, 10.0, 10.0]);
        assert_eq!(found["newline.grad"].data, [1001.0; 3]);
        assert!(Trainable::FULL.contains("model.image_newline") && !Trainable::LORA.contains("model.image_newline"));
    }
}
