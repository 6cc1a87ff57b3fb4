//! `attention{causal, scale}(q, k, v)`: scaled dot-product attention.

use super::attention_grad::{AttentionGrad, Operand};
use super::attr::Real;
use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::ir::{Graph, Value};
use crate::types::{DType, TensorType};

op! {
    /// `softmax(scale · q·kᵀ)·v` per head: `q (B, H, T, E)`, `k, v (B, G, S, E)` with `G` dividing `H`; query head `h`
    /// reads key head `h / (H/G)`. Causal attention lets position `t` see positions `0..=t` and needs `S = T`.
    /// Right-padded batches need no length mask under it: a real position never sees padding behind itself.
    /// Reference: A. Vaswani et al., 2017; J. Ainslie et al., GQA, 2023.
    Attention = "attention" {
        /// Whether a position sees only itself and what is before it.
        causal: bool,
        /// Factor on the scores.
        scale: Real,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [q, k, v] = arity(args)?;
        check_shapes(q, k, v)?;
        if self.causal && q.shape[2] != k.shape[2] {
            return Err("causal attention takes as many queries as keys".into());
        }
        Ok(q.clone())
    }

    fn grad(&self, cx: &mut Backward<'_>) {
        for (position, wrt) in [Operand::Query, Operand::Key, Operand::Value].into_iter().enumerate() {
            cx.give(position, |cx| {
                let rule = AttentionGrad { wrt, causal: self.causal, scale: self.scale };
                let args = [cx.args[0], cx.args[1], cx.args[2], cx.out, cx.dy];
                cx.graph.push(rule, &args)
            });
        }
    }

    fn class(&self) -> Class {
        Class::Composite
    }

    fn expand(&self, graph: &mut Graph, args: &[Value]) -> Option<Value> {
        let shape = graph.shape(args[0]).to_vec();
        let grouped = Grouped::new(graph, args[0], args[1], args[2]);
        let p = grouped.probabilities(graph, self.causal, self.scale.get());
        let out = graph.dot(p, grouped.v);
        Some(graph.reshape(out, &shape))
    }

    fn samples() -> Vec<Sample> {
        let attention = |causal| Sample::new(Attention { causal, scale: Real::new(0.5) });
        vec![
            attention(true).f32(&[2, 2, 5, 4]).f32(&[2, 2, 5, 4]).f32(&[2, 2, 5, 4]),
            attention(true).f32(&[1, 4, 7, 8]).f32(&[1, 2, 7, 8]).f32(&[1, 2, 7, 8]),
            attention(false).f32(&[2, 2, 3, 6]).f32(&[2, 2, 9, 6]).f32(&[2, 2, 9, 6]),
        ]
    }
}

/// Shape rule shared with the gradient.
pub(super) fn check_shapes(q: &TensorType, k: &TensorType, v: &TensorType) -> Result<(), String> {
    let real = [q, k, v].iter().all(|t| t.dtype == DType::F32 && t.rank() == 4);
    if !real || k != v || q.shape[0] != k.shape[0] || q.shape[3] != k.shape[3] || k.shape[1] == 0 || !q.shape[1].is_multiple_of(k.shape[1]) {
        return Err("takes q (B,H,T,E) and equal k, v (B,G,S,E) with G dividing H".into());
    }
    Ok(())
}

/// Attention operands with the query heads that share a key head on an axis of their own.
pub(super) struct Grouped {
    /// `(B, G, H/G, T, E)`
    pub(super) q: Value,
    /// `(B, G, H/G, S, E)`, repeated
    pub(super) k: Value,
    /// `(B, G, H/G, S, E)`, repeated
    pub(super) v: Value,
    /// `[B, G, H/G, T, E]`
    pub(super) shape: [usize; 5],
}

impl Grouped {
    pub(super) fn new(graph: &mut Graph, q: Value, k: Value, v: Value) -> Self {
        let (qs, ks) = (graph.shape(q).to_vec(), graph.shape(k).to_vec());
        let (batch, groups, keys, width) = (ks[0], ks[1], ks[2], ks[3]);
        let shape = [batch, groups, qs[1] / groups, qs[2], width];
        let mut repeat = |x: Value| {
            let x = graph.reshape(x, &[batch, groups, 1, keys, width]);
            graph.expand(x, &[batch, groups, shape[2], keys, width])
        };
        let (k, v) = (repeat(k), repeat(v));
        Self { q: graph.reshape(q, &shape), k, v, shape }
    }

    /// `softmax(scale · q·kᵀ)`, `(B, G, H/G, T, S)`
    pub(super) fn probabilities(&self, graph: &mut Graph, causal: bool, scale: f64) -> Value {
        let kt = graph.transpose(self.k);
        let raw = graph.dot(self.q, kt);
        let mut scores = graph.scale(raw, scale);
        if causal {
            let shape = graph.shape(scores).to_vec();
            let (query, key) = (graph.iota(&shape, 3), graph.iota(&shape, 4));
            let hidden = graph.less(query, key);
            // Far below any score, and finite: exp of the difference is exactly zero.
            let floor = graph.constant(DType::F32, -1e30, &shape);
            scores = graph.select(hidden, floor, scores);
        }
        let largest = graph.reduce_max(scores, &[4]);
        let largest = graph.stop_gradient(largest);
        let shifted = graph.sub(scores, largest);
        let weights = graph.exp(shifted);
        let total = graph.sum(weights, &[4]);
        graph.div(weights, total)
    }
}
