//! `attention_lse{causal, scale}(q, k)`: logarithm of the softmax denominator of attention.

use super::Op;
use super::attention::{Grouped, check_shapes, has_kernel, on_matrices};
use super::attr::Real;
use super::rule::{Class, Sample, arity};
use crate::compile::Options;
use crate::grad::Backward;
use crate::ir::{Graph, Value};
use crate::types::TensorType;

op! {
    /// `log(sum(exp(scale · q·kᵀ)))` over the keys that each query sees, `(B, T, H)`, from `q (B, T, H, E)` and
    /// `k (B, S, G, E)`. The gradient of attention makes the attention weights from it again, `exp(score - lse)`.
    /// Reference: T. Dao et al., FlashAttention, 2022.
    AttentionLse = "attention_lse" {
        /// Whether a position sees only itself and what is before it, queries being the last positions.
        causal: bool,
        /// Factor on the scores.
        scale: Real,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [q, k] = arity(args)?;
        check_shapes(q, k, self.causal)?;
        Ok(TensorType::f32(q.shape[..3].to_vec()))
    }

    // Only second derivatives of attention come here.
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.through_expansion(|graph, args| self.expand(graph, args));
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
        Some((self.clone().into(), args.to_vec()))
    }

    fn expand(&self, graph: &mut Graph, args: &[Value]) -> Option<Value> {
        let grouped = Grouped::new(graph, args[0], args[1]);
        let scores = grouped.scores(graph, self.causal, self.scale.get());
        let largest = graph.reduce_max(scores, &[4]);
        let largest = graph.stop_gradient(largest);
        let shifted = graph.sub(scores, largest);
        let weights = graph.exp(shifted);
        let total = graph.sum(weights, &[4]);
        let log = graph.log(total);
        let lse = graph.add(log, largest);
        let lse = grouped.queries(graph, lse);
        let heads = graph.shape(args[0])[..3].to_vec();
        Some(graph.reshape(lse, &heads))
    }

    fn samples() -> Vec<Sample> {
        let lse = |causal| Sample::new(AttentionLse { causal, scale: Real::new(0.5) });
        vec![
            lse(true).f32(&[1, 7, 4, 8]).f32(&[1, 7, 2, 8]),
            lse(true).f32(&[1, 3, 4, 8]).f32(&[1, 7, 2, 8]),
            lse(false).f32(&[2, 3, 2, 6]).f32(&[2, 9, 2, 6]),
        ]
    }
}
