//! `attention_grad{wrt, causal, scale}(q, k, v, lse, delta, dy)`: gradient of attention.

use super::Op;
use super::attention::{Grouped, check_shapes, has_kernel, on_matrices};
use super::attr::{Attr, Real};
use super::rule::{Class, Gen, Sample, arity};
use crate::compile::Options;
use crate::grad::Backward;
use crate::ir::{Graph, Value};
use crate::passes::remat::RECOMPUTE;
use crate::types::{DType, TensorType};

/// An operand of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// `q`
    Query,
    /// `k`
    Key,
    /// `v`
    Value,
}

impl Attr for Operand {
    fn write(&self) -> String {
        match self {
            Operand::Query => "q".into(),
            Operand::Key => "k".into(),
            Operand::Value => "v".into(),
        }
    }

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "q" => Ok(Operand::Query),
            "k" => Ok(Operand::Key),
            "v" => Ok(Operand::Value),
            other => Err(format!("`{other}` is not q, k or v")),
        }
    }
}

op! {
    /// Gradient of `attention` with respect to one operand, from the operands, the log-sum-exp of the scores (`attention_lse`,
    /// `(B, T, H)`), the row sums δ of dy·out `(B, T, H)` and the gradient of the result.
    /// With the attention weights P = exp(scale · q·kᵀ - lse):  dS = P ∘ (dy·vᵀ - δ),  dq = scale · dS·k,
    /// dk = scale · dSᵀ·q,  dv = Pᵀ·dy, the last two summed over the query heads of a group.
    /// Reference: T. Dao et al., FlashAttention, 2022, appendix B.2.
    AttentionGrad = "attention_grad" {
        /// Which operand.
        wrt: Operand,
        /// Whether a position sees only itself and what is before it, queries being the last positions.
        causal: bool,
        /// Factor on the scores.
        scale: Real,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [q, k, v, lse, delta, dy] = arity(args)?;
        check_shapes(q, k, self.causal)?;
        let rows = TensorType::f32(q.shape[..3].to_vec());
        if k != v || dy != q || *lse != rows || *delta != rows {
            return Err("takes k and v of one type, the result's gradient of q's, and two f32[B,T,H]".into());
        }
        Ok(match self.wrt {
            Operand::Query => q.clone(),
            Operand::Key | Operand::Value => k.clone(),
        })
    }

    // Second derivatives are those of the expansion.
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

    // Both gradients with respect to what keys own come from one launch.
    fn launch(&self, args: &[Value]) -> Option<(Op, Vec<Value>)> {
        let wrt = if self.wrt == Operand::Value { Operand::Key } else { self.wrt };
        Some((AttentionGrad { wrt, ..self.clone() }.into(), args.to_vec()))
    }

    fn expand(&self, graph: &mut Graph, args: &[Value]) -> Option<Value> {
        // The scores are computed again, lest those of the forward pass stay in memory for this.
        let q = graph.tag(args[0], RECOMPUTE);
        let grouped = Grouped::new(graph, q, args[1]);
        let [batch, groups, share, _, width] = grouped.shape;
        let scores = grouped.scores(graph, self.causal, self.scale.get());
        let lse = grouped.split_rows(graph, args[3]);
        let shifted = graph.sub(scores, lse);
        let p = graph.exp(shifted);
        let dy = grouped.split(graph, args[5]);
        let of_heads = match self.wrt {
            Operand::Value => {
                let pt = graph.transpose(p);
                graph.dot(pt, dy)
            }
            Operand::Query | Operand::Key => {
                let v = grouped.repeated(graph, args[2]);
                let vt = graph.transpose(v);
                let dp = graph.dot(dy, vt);
                let delta = grouped.split_rows(graph, args[4]);
                let centred = graph.sub(dp, delta);
                let ds = graph.mul(p, centred);
                let ds = graph.scale(ds, self.scale.get());
                if self.wrt == Operand::Query {
                    let dq = graph.dot(ds, grouped.k);
                    return Some(grouped.queries(graph, dq));
                }
                let dst = graph.transpose(ds);
                graph.dot(dst, grouped.q)
            }
        };
        let keys = graph.shape(args[1])[1];
        let summed = if share == 1 { of_heads } else { graph.sum(of_heads, &[2]) };
        let summed = graph.reshape(summed, &[batch, groups, keys, width]);
        Some(graph.permute(summed, &[0, 2, 1, 3]))
    }

    fn samples() -> Vec<Sample> {
        let grad = |wrt, causal, q: [usize; 4], k: [usize; 4]| {
            let rule = AttentionGrad { wrt, causal, scale: Real::new(0.5) };
            // A log-sum-exp above every score, as it always is.
            let sample = Sample::new(rule).f32(&q).f32(&k).f32(&k).arg(DType::F32, &q[..3], Gen::Uniform(1.0, 2.0));
            sample.f32(&q[..3]).f32(&q)
        };
        let all = [Operand::Query, Operand::Key, Operand::Value];
        let lengths = [5, 3].iter();
        lengths.flat_map(|&queries| all.map(|wrt| grad(wrt, true, [1, queries, 4, 4], [1, 5, 2, 4]))).collect()
    }
}
