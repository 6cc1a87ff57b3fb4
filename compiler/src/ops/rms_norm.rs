//! `rms_norm{eps}(x, weight)`: root-mean-square normalisation.

use super::attr::Real;
use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::ir::{Graph, Value};
use crate::types::{DType, TensorType};

op! {
    /// `x / sqrt(mean(x²) + eps) · weight` over the last axis: `x (…, D)`, `weight (D)`.
    /// Reference: B. Zhang and R. Sennrich, Root Mean Square Layer Normalization, 2019.
    RmsNorm = "rms_norm" {
        /// Added to the mean square.
        eps: Real,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x, weight] = arity(args)?;
        if x.dtype != DType::F32 || weight.dtype != DType::F32 || x.rank() == 0 || weight.shape[..] != x.shape[x.rank() - 1..] {
            return Err("takes f32[…,D] and f32[D]".into());
        }
        Ok(x.clone())
    }

    // With r = 1/sqrt(mean(x²) + eps), n = x·r and g = dy·weight:
    //   dx = r · (g - n · mean(g · n)),   dweight = sum over rows of dy · n
    fn grad(&self, cx: &mut Backward<'_>) {
        let (x, weight) = (cx.args[0], cx.args[1]);
        let r = self.inverse_rms(cx.graph, x);
        let n = cx.graph.mul(x, r);
        cx.give(0, |cx| {
            let g = cx.graph.mul(cx.dy, weight);
            let gn = cx.graph.mul(g, n);
            let mean = cx.graph.mean_last(gn);
            let along = cx.graph.mul(n, mean);
            let across = cx.graph.sub(g, along);
            cx.graph.mul(across, r)
        });
        cx.give(1, |cx| {
            let product = cx.graph.mul(cx.dy, n);
            sum_rows(cx.graph, product)
        });
    }

    fn class(&self) -> Class {
        Class::Composite
    }

    fn by_rows(&self, _args: &[&TensorType]) -> Option<Vec<usize>> {
        Some(vec![0])
    }

    fn expand(&self, graph: &mut Graph, args: &[Value]) -> Option<Value> {
        let r = self.inverse_rms(graph, args[0]);
        let n = graph.mul(args[0], r);
        Some(graph.mul(n, args[1]))
    }

    fn samples() -> Vec<Sample> {
        let norm = || Sample::new(RmsNorm { eps: Real::new(1e-5) });
        vec![norm().f32(&[4, 24]).f32(&[24]), norm().f32(&[2, 3, 7]).f32(&[7])]
    }
}

impl RmsNorm {
    /// `1 / sqrt(mean(x²) + eps)`, `(…, 1)`.
    fn inverse_rms(&self, graph: &mut Graph, x: Value) -> Value {
        let square = graph.mul(x, x);
        let mean = graph.mean_last(square);
        let shifted = graph.offset(mean, self.eps.get());
        let rms = graph.sqrt(shifted);
        graph.recip(rms)
    }
}

/// Sum over all axes but the last: `(…, D) -> (D)`.
pub(super) fn sum_rows(graph: &mut Graph, x: Value) -> Value {
    let (flat, _) = graph.flatten_rows(x);
    let sum = graph.sum(flat, &[0]);
    let width = graph.shape(sum)[1];
    graph.reshape(sum, &[width])
}
