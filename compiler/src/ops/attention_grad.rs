//! `attention_grad{wrt, causal, scale}(q, k, v, out, dy)`: gradient of attention.

use super::attention::{Grouped, check_shapes};
use super::attr::{Attr, Real};
use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::ir::{Graph, Value};
use crate::types::TensorType;

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
    /// Gradient of `attention` with respect to one operand, from the operands, the result and the gradient of the result.
    /// With P the attention weights and δ the row sums of dy·out:  dS = P ∘ (dy·vᵀ - δ),  dq = scale · dS·k,
    /// dk = scale · dSᵀ·q,  dv = Pᵀ·dy, the last two summed over the query heads of a group.
    /// Reference: T. Dao et al., FlashAttention, 2022, appendix B.2.
    AttentionGrad = "attention_grad" {
        /// Which operand.
        wrt: Operand,
        /// Whether a position sees only itself and what is before it.
        causal: bool,
        /// Factor on the scores.
        scale: Real,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [q, k, v, out, dy] = arity(args)?;
        check_shapes(q, k, v)?;
        if out != q || dy != q {
            return Err("the result and its gradient have the type of q".into());
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

    fn expand(&self, graph: &mut Graph, args: &[Value]) -> Option<Value> {
        let grouped = Grouped::new(graph, args[0], args[1], args[2]);
        let [batch, groups, _, _, width] = grouped.shape;
        let p = grouped.probabilities(graph, self.causal, self.scale.get());
        let (out, dy) = (graph.reshape(args[3], &grouped.shape), graph.reshape(args[4], &grouped.shape));
        let of_heads = match self.wrt {
            Operand::Value => {
                let pt = graph.transpose(p);
                graph.dot(pt, dy)
            }
            Operand::Query | Operand::Key => {
                let product = graph.mul(dy, out);
                let delta = graph.sum(product, &[4]);
                let vt = graph.transpose(grouped.v);
                let dp = graph.dot(dy, vt);
                let centred = graph.sub(dp, delta);
                let ds = graph.mul(p, centred);
                let ds = graph.scale(ds, self.scale.get());
                if self.wrt == Operand::Query {
                    graph.dot(ds, grouped.k)
                } else {
                    let dst = graph.transpose(ds);
                    graph.dot(dst, grouped.q)
                }
            }
        };
        Some(if self.wrt == Operand::Query {
            let shape = graph.shape(args[0]).to_vec();
            graph.reshape(of_heads, &shape)
        } else {
            let keys = graph.shape(args[1])[2];
            let summed = if grouped.shape[2] == 1 { of_heads } else { graph.sum(of_heads, &[2]) };
            graph.reshape(summed, &[batch, groups, keys, width])
        })
    }

    fn samples() -> Vec<Sample> {
        let grad = |wrt| {
            let (q, k) = ([1, 4, 5, 4], [1, 2, 5, 4]);
            let rule = AttentionGrad { wrt, causal: true, scale: Real::new(0.5) };
            Sample::new(rule).f32(&q).f32(&k).f32(&k).f32(&q).f32(&q)
        };
        vec![grad(Operand::Query), grad(Operand::Key), grad(Operand::Value)]
    }
}
