//! The two ends of the decoder: embeddings of text and pictures in one sequence, and logits where they are needed.

use viral_compiler::types::DType;
use viral_compiler::{Graph, Value};

use super::leaf::Trainable;
use super::source::LeafSource;
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
        let mut h = Table::embedding(config).rows_at(g, trainable, token_ids);
        if let Some(visual) = visual {
            let rows = visual.rows(g);
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
            Table::embedding(config)
        } else {
            Table { name: "lm_head.weight", ..Table::embedding(config) }
        };
        head.products(g, trainable, rows)
    })
}

/// Rows `(S, D)` of a state `h (B, T, D)` at `positions u32[S]` out of all `B·T`, each at most once; zeros for [`NO_ROW`].
pub fn rows_at(g: &mut Graph, h: Value, positions: Value) -> Value {
    let (flat, _) = g.flatten_rows(h);
    g.gather(flat, positions, true)
}

/// What devices bind at once, in bytes.
const BINDING: usize = (1 << 31) - 4;

/// A table with a row for each token, `(V, D)`. A frozen one that is too large for a binding comes in several parts.
struct Table {
    name: &'static str,
    rows: usize,
    width: usize,
    /// Largest part in bytes.
    limit: usize,
}

impl Table {
    fn embedding(config: &TextConfig) -> Self {
        let name = "model.language_model.embed_tokens.weight";
        Self { name, rows: config.vocab_size, width: config.hidden_size, limit: BINDING }
    }

    /// The parts, each with its first row.
    fn parts(&self, g: &mut Graph, trainable: Trainable) -> Vec<(usize, Value)> {
        let most = (self.limit / (4 * self.width).max(1)).max(1);
        if self.rows <= most || trainable.contains(self.name) {
            return vec![(0, trainable.leaf(g, self.name, &[self.rows, self.width]))];
        }
        let each = self.rows.div_ceil(self.rows.div_ceil(most));
        let starts = (0..self.rows).step_by(each);
        let part = |start| {
            let count = each.min(self.rows - start);
            (start, LeafSource::rows(self.name, start, count).leaf(g, &[count, self.width]))
        };
        starts.map(part).collect()
    }

    /// Rows at `index u32[n]`, `(n, D)`; zeros for [`NO_ROW`].
    fn rows_at(&self, g: &mut Graph, trainable: Trainable, index: Value) -> Value {
        let mut sum = None;
        for (start, part) in self.parts(g, trainable) {
            let index = if start == 0 { index } else { counted_from(g, index, start) };
            let rows = g.gather(part, index, false);
            sum = Some(sum.map_or(rows, |sum| g.add(sum, rows)));
        }
        sum.unwrap_or(index)
    }

    /// Products of `x (n, D)` with all rows, `(n, V)`.
    fn products(&self, g: &mut Graph, trainable: Trainable, x: Value) -> Value {
        let parts = self.parts(g, trainable);
        let products: Vec<Value> = parts.into_iter().map(|(_, part)| g.linear(x, part, None)).collect();
        match products.as_slice() {
            [one] => *one,
            several => g.concat(several, 1),
        }
    }
}

/// `index - start`, and [`NO_ROW`] for what is before `start`. What is behind the part's end picks no row either.
fn counted_from(g: &mut Graph, index: Value, start: usize) -> Value {
    let shape = g.shape(index).to_vec();
    let first = g.constant(DType::U32, start as f64, &shape);
    let none = g.constant(DType::U32, f64::from(NO_ROW), &shape);
    let is_before = g.less(index, first);
    // What is subtracted from is never smaller, as u32 has no sign.
    let index = g.select(is_before, first, index);
    let inside = g.sub(index, first);
    g.select(is_before, none, inside)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use viral_compiler::eval::evaluate_outputs;
    use viral_compiler::grad::gradients;
    use viral_compiler::tensor::Tensor;
    use viral_compiler::types::TensorType;

    use super::*;

    #[test]
    fn a_table_in_parts_is_the_table() {
        let value = |at: &[usize]| (at[0] * 10 + at[1]) as f64;
        let run = |limit| {
            let table = Table { name: "lm_head.weight", rows: 7, width: 3, limit };
            let mut g = Graph::new();
            let index = g.input("index", DType::U32, &[5]);
            let rows = table.rows_at(&mut g, Trainable::LORA, index);
            let products = table.products(&mut g, Trainable::LORA, rows);
            g.output("rows", rows);
            g.output("products", products);
            g.verify().unwrap();
            let whole = Tensor::from_fn(&TensorType::f32([7, 3]), value);
            let load = |_, _: &str| Ok::<_, String>((vec![7, 3], whole.data.iter().map(|&x| x as f32).collect()));
            let mut leaves: HashMap<String, Tensor> = g
                .leaves()
                .filter(|leaf| leaf.name != "index")
                .map(|leaf| {
                    let content = LeafSource::of(leaf.name).content(load).unwrap();
                    (leaf.name.to_owned(), Tensor::new(leaf.ty.clone(), content.into_iter().map(f64::from).collect()))
                })
                .collect();
            let parts = leaves.len();
            let index = vec![0.0, 6.0, 2.0, f64::from(NO_ROW), 3.0];
            leaves.insert("index".into(), Tensor::new(TensorType::u32([5]), index));
            (parts, evaluate_outputs(&g, &leaves).unwrap())
        };
        let (one, expected) = run(1000);
        let (three, found) = run(3 * 3 * 4);
        assert_eq!((one, three), (1, 3));
        assert_eq!(found, expected);
        assert_eq!(found["rows"].data[3..6], [60.0, 61.0, 62.0]);
        assert_eq!(found["rows"].data[9..12], [0.0; 3]);
    }

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

    #[test]
    fn a_trained_table_stays_whole() {
        let mut g = Graph::new();
        let table = Table { name: "lm_head.weight", rows: 7, width: 3, limit: 36 };
        assert_eq!(table.parts(&mut g, Trainable::FULL).len(), 1);
    }
}
