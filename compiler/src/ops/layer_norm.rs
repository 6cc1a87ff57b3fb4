//! `layer_norm{eps}(x, weight, bias)`: layer normalisation.

use super::attr::Real;
use super::rms_norm::sum_rows;
use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::ir::{Graph, Value};
use crate::types::{DType, TensorType};

op! {
    /// `(x - mean) / sqrt(var + eps) · weight + bias` over the last axis, with the biased variance: `x (…, D)`,
    /// `weight, bias (D)`. Reference: J. L. Ba et al., Layer Normalization, 2016.
    LayerNorm = "layer_norm" {
        /// Added to the variance.
        eps: Real,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x, weight, bias] = arity(args)?;
        if x.dtype != DType::F32 || x.rank() == 0 || weight.shape[..] != x.shape[x.rank() - 1..] || weight != bias {
            return Err("takes f32[…,D], f32[D] and f32[D]".into());
        }
        Ok(x.clone())
    }

    // With r = 1/sqrt(var + eps), n = (x - mean)·r and g = dy·weight:
    //   dx = r · (g - mean(g) - n · mean(g · n)),   dweight = sum over rows of dy · n,   dbias = sum over rows of dy
    fn grad(&self, cx: &mut Backward<'_>) {
        let weight = cx.args[1];
        let (n, r) = self.normalise(cx.graph, cx.args[0]);
        cx.give(0, |cx| {
            let g = cx.graph.mul(cx.dy, weight);
            let mean = cx.graph.mean_last(g);
            let gn = cx.graph.mul(g, n);
            let slope = cx.graph.mean_last(gn);
            let along = cx.graph.mul(n, slope);
            let centred = cx.graph.sub(g, mean);
            let across = cx.graph.sub(centred, along);
            cx.graph.mul(across, r)
        });
        cx.give(1, |cx| {
            let product = cx.graph.mul(cx.dy, n);
            sum_rows(cx.graph, product)
        });
        cx.give(2, |cx| sum_rows(cx.graph, cx.dy));
    }

    fn class(&self) -> Class {
        Class::Composite
    }

    fn by_rows(&self, _args: &[&TensorType]) -> Option<Vec<usize>> {
        Some(vec![0])
    }

    fn expand(&self, graph: &mut Graph, args: &[Value]) -> Option<Value> {
        let (n, _) = self.normalise(graph, args[0]);
        let scaled = graph.mul(n, args[1]);
        Some(graph.add(scaled, args[2]))
    }

    fn samples() -> Vec<Sample> {
        let norm = || Sample::new(LayerNorm { eps: Real::new(1e-5) });
        vec![norm().f32(&[4, 24]).f32(&[24]).f32(&[24]), norm().f32(&[2, 3, 7]).f32(&[7]).f32(&[7])]
    }
}

impl LayerNorm {
    /// `((x - mean) · r (…, D), r = 1 / sqrt(var + eps) (…, 1))`
    fn normalise(&self, graph: &mut Graph, x: Value) -> (Value, Value) {
        let mean = graph.mean_last(x);
        let centred = graph.sub(x, mean);
        let square = graph.mul(centred, centred);
        let variance = graph.mean_last(square);
        let shifted = graph.offset(variance, self.eps.get());
        let deviation = graph.sqrt(shifted);
        let r = graph.recip(deviation);
        (graph.mul(centred, r), r)
    }
}
