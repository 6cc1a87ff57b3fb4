//! `attention{causal, scale}(q, k, v)`: scaled dot-product attention.

use super::Op;
use super::attention_grad::{AttentionGrad, Operand};
use super::attention_lse::AttentionLse;
use super::attr::Real;
use super::rule::{Class, Sample, arity};
use crate::compile::Options;
use crate::grad::Backward;
use crate::ir::{Graph, Value};
use crate::types::{DType, TensorType};

op! {
    /// `softmax(scale · q·kᵀ)·v` per head: `q (B, T, H, E)`, `k, v (B, S, G, E)` with `G` dividing `H`; query head `h`
    /// reads key head `h / (H/G)`. Causal attention is that of the last `T` of `S` positions: query `t` sees keys `0..=t + S - T`.
    /// Heads lie behind positions, as linear maps leave them, so that nothing is moved before or after.
    /// Right-padded batches need no length mask under causality: a real position never sees padding behind itself.
    /// Reference: A. Vaswani et al., 2017; J. Ainslie et al., GQA, 2023.
    Attention = "attention" {
        /// Whether a position sees only itself and what is before it, queries being the last positions.
        causal: bool,
        /// Factor on the scores.
        scale: Real,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [q, k, v] = arity(args)?;
        check_shapes(q, k, self.causal)?;
        if k != v {
            return Err("takes k and v of one type".into());
        }
        Ok(q.clone())
    }

    fn grad(&self, cx: &mut Backward<'_>) {
        // What all three gradients share: row sums of dy·out, and the log-sum-exp of the scores. The forward kernel writes
        // the latter, too.
        let [q, k, v] = [cx.args[0], cx.args[1], cx.args[2]];
        let (out, dy) = (cx.out, cx.dy);
        let heads = cx.graph.shape(q)[..3].to_vec();
        let product = cx.graph.mul(dy, out);
        let delta = cx.graph.sum(product, &[3]);
        let delta = cx.graph.reshape(delta, &heads);
        let lse = cx.graph.push(AttentionLse { causal: self.causal, scale: self.scale }, &[q, k]);
        for (position, wrt) in [Operand::Query, Operand::Key, Operand::Value].into_iter().enumerate() {
            cx.give(position, |cx| {
                let rule = AttentionGrad { wrt, causal: self.causal, scale: self.scale };
                cx.graph.push(rule, &[q, k, v, lse, delta, dy])
            });
        }
    }

    fn class(&self) -> Class {
        Class::Composite
    }

    fn has_kernel(&self, args: &[&TensorType], _options: &Options) -> bool {
        has_kernel(args[0])
    }

    fn on_matrices(&self, args: &[&TensorType]) -> Option<u64> {
        on_matrices(args[0], args[1])
    }

    fn launch(&self, args: &[Value]) -> Option<(Op, Vec<Value>)> {
        Some((AttentionLse { causal: self.causal, scale: self.scale }.into(), args[..2].to_vec()))
    }

    fn expand(&self, graph: &mut Graph, args: &[Value]) -> Option<Value> {
        let grouped = Grouped::new(graph, args[0], args[1]);
        let scores = grouped.scores(graph, self.causal, self.scale.get());
        let largest = graph.reduce_max(scores, &[4]);
        let largest = graph.stop_gradient(largest);
        let shifted = graph.sub(scores, largest);
        let weights = graph.exp(shifted);
        let total = graph.sum(weights, &[4]);
        let p = graph.div(weights, total);
        let v = grouped.repeated(graph, args[2]);
        let out = graph.dot(p, v);
        Some(grouped.queries(graph, out))
    }

    fn samples() -> Vec<Sample> {
        let attention = |causal| Sample::new(Attention { causal, scale: Real::new(0.5) });
        vec![
            attention(true).f32(&[2, 5, 2, 4]).f32(&[2, 5, 2, 4]).f32(&[2, 5, 2, 4]),
            attention(true).f32(&[1, 7, 4, 8]).f32(&[1, 7, 2, 8]).f32(&[1, 7, 2, 8]),
            attention(false).f32(&[2, 3, 2, 6]).f32(&[2, 9, 2, 6]).f32(&[2, 9, 2, 6]),
            // Head widths and lengths around the tiles of the kernels.
            attention(true).f32(&[1, 67, 2, 64]).f32(&[1, 67, 1, 64]).f32(&[1, 67, 1, 64]),
            attention(false).f32(&[1, 35, 2, 36]).f32(&[1, 70, 1, 36]).f32(&[1, 70, 1, 36]),
            attention(false).f32(&[1, 66, 2, 128]).f32(&[1, 33, 1, 128]).f32(&[1, 33, 1, 128]),
            // The last positions only, fewer and more than a tile.
            attention(true).f32(&[2, 20, 2, 8]).f32(&[2, 70, 1, 8]).f32(&[2, 70, 1, 8]),
            attention(true).f32(&[1, 67, 1, 64]).f32(&[1, 130, 1, 64]).f32(&[1, 130, 1, 64]),
            // Too wide for the kernels.
            attention(true).f32(&[1, 4, 1, 132]).f32(&[1, 4, 1, 132]).f32(&[1, 4, 1, 132]),
        ]
    }
}

/// Widest head that the kernels take.
const MAX_WIDTH: usize = 128;

/// Whether the kernels of attention and its gradients take queries of this type.
pub(super) fn has_kernel(q: &TensorType) -> bool {
    q.shape[3].is_multiple_of(4) && q.shape[3] <= MAX_WIDTH
}

/// Bytes of the scores, where queries and keys are enough for cooperative matrices: kernels of the fused kind cannot use
/// them, because nobody but the device knows which invocation has which score.
pub(super) fn on_matrices(q: &TensorType, k: &TensorType) -> Option<u64> {
    let [queries, keys] = [q.shape[1], k.shape[1]];
    (queries.min(keys) >= 64).then(|| 4 * (q.shape[0] * q.shape[2] * queries * keys) as u64)
}

/// Shape rule shared with the log-sum-exp and the gradient.
pub(super) fn check_shapes(q: &TensorType, k: &TensorType, causal: bool) -> Result<(), String> {
    let real = [q, k].iter().all(|t| t.dtype == DType::F32 && t.rank() == 4);
    if !real
        || q.shape[0] != k.shape[0]
        || q.shape[3] != k.shape[3]
        || k.shape[2] == 0
        || !q.shape[2].is_multiple_of(k.shape[2])
    {
        return Err("takes q (B,T,H,E) and k (B,S,G,E) with G dividing H".into());
    }
    if causal && q.shape[1] > k.shape[1] {
        return Err("causal attention takes at most as many queries as keys".into());
    }
    Ok(())
}

/// Attention operands with the query heads that share a key head on an axis of their own.
pub(super) struct Grouped {
    /// `(B, G, H/G, T, E)`
    pub(super) q: Value,
    /// `(B, G, H/G, S, E)`, repeated
    pub(super) k: Value,
    /// `[B, G, H/G, T, E]`
    pub(super) shape: [usize; 5],
}

impl Grouped {
    pub(super) fn new(graph: &mut Graph, q: Value, k: Value) -> Self {
        let (qs, ks) = (graph.shape(q).to_vec(), graph.shape(k).to_vec());
        let shape = [qs[0], ks[2], qs[2] / ks[2], qs[1], qs[3]];
        let mut this = Self { q, k, shape };
        this.q = this.split(graph, q);
        this.k = this.repeated(graph, k);
        this
    }

    /// `(B, T, H, E)` as `(B, G, H/G, T, E)`
    pub(super) fn split(&self, graph: &mut Graph, x: Value) -> Value {
        let [batch, groups, share, queries, width] = self.shape;
        let x = graph.reshape(x, &[batch, queries, groups, share, width]);
        graph.permute(x, &[0, 2, 3, 1, 4])
    }

    /// `(B, T, H)` as `(B, G, H/G, T, 1)`
    pub(super) fn split_rows(&self, graph: &mut Graph, x: Value) -> Value {
        let [batch, groups, share, queries, _] = self.shape;
        let x = graph.reshape(x, &[batch, queries, groups, share, 1]);
        graph.permute(x, &[0, 2, 3, 1, 4])
    }

    /// `(B, S, G, E)` as `(B, G, H/G, S, E)`
    pub(super) fn repeated(&self, graph: &mut Graph, x: Value) -> Value {
        let [batch, groups, share, _, width] = self.shape;
        let keys = graph.shape(x)[1];
        let x = graph.permute(x, &[0, 2, 1, 3]);
        let x = graph.reshape(x, &[batch, groups, 1, keys, width]);
        graph.expand(x, &[batch, groups, share, keys, width])
    }

    /// The inverse of `split`, for any last axis.
    pub(super) fn queries(&self, graph: &mut Graph, x: Value) -> Value {
        let [batch, groups, share, queries, _] = self.shape;
        let width = graph.shape(x)[4];
        let x = graph.permute(x, &[0, 3, 1, 2, 4]);
        graph.reshape(x, &[batch, queries, groups * share, width])
    }

    /// `scale · q·kᵀ`, `(B, G, H/G, T, S)`, with what a position does not see far below any score.
    pub(super) fn scores(&self, graph: &mut Graph, causal: bool, scale: f64) -> Value {
        let kt = graph.transpose(self.k);
        let raw = graph.dot(self.q, kt);
        let scores = graph.scale(raw, scale);
        if !causal {
            return scores;
        }
        let shape = graph.shape(scores).to_vec();
        let (query, key) = (graph.iota(&shape, 3), graph.iota(&shape, 4));
        let ahead = graph.constant(DType::U32, (shape[4] - shape[3]) as f64, &shape);
        let position = graph.add(query, ahead);
        let hidden = graph.less(position, key);
        // Finite: exp of the difference is exactly zero.
        let floor = graph.constant(DType::F32, -1e30, &shape);
        graph.select(hidden, floor, scores)
    }
}
