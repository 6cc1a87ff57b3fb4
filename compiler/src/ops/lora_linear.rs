//! `lora_linear{scale}(x, x_adapter, w, a, b)`: linear map with a low-rank adapter.

use super::attr::Real;
use super::rule::{Class, Sample, arity};
use crate::grad::Backward;
use crate::ir::{Graph, Value};
use crate::types::{DType, TensorType};

op! {
    /// `x·Wᵀ + scale · (x_adapter·Aᵀ)·Bᵀ`: `x, x_adapter (M, K)`, `W (N, K)`, `A (r, K)`, `B (N, r)`, result `(M, N)`.
    /// `x_adapter` is `x` itself, or `x` after dropout. Reference: E. Hu et al., LoRA, 2021.
    LoraLinear = "lora_linear" {
        /// alpha / r
        scale: Real,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x, x_adapter, w, a, b] = arity(args)?;
        if args.iter().any(|t| t.dtype != DType::F32 || t.rank() != 2) || x != x_adapter {
            return Err("takes five matrices of reals, the first two of one shape".into());
        }
        let (k, n, r) = (x.shape[1], w.shape[0], a.shape[0]);
        if w.shape[1] != k || a.shape[1] != k || b.shape != [n, r] {
            return Err("expected W (N,K), A (r,K) and B (N,r)".into());
        }
        Ok(TensorType::f32([x.shape[0], n]))
    }

    // With z = scale · x_adapter·Aᵀ and dz = scale · dy·B:
    //   dx = dy·W,   dx_adapter = dz·A,   dW = dyᵀ·x,   dA = dzᵀ·x_adapter,   dB = dyᵀ·z
    fn grad(&self, cx: &mut Backward<'_>) {
        let (x, x_adapter, w, a, b) = (cx.args[0], cx.args[1], cx.args[2], cx.args[3], cx.args[4]);
        let dz = cx.graph.dot(cx.dy, b);
        let dz = cx.graph.scale(dz, self.scale.get());
        let transposed = cx.graph.transpose(cx.dy);
        cx.give(0, |cx| cx.graph.dot(cx.dy, w));
        cx.give(1, |cx| cx.graph.dot(dz, a));
        cx.give(2, |cx| cx.graph.dot(transposed, x));
        cx.give(3, |cx| {
            let dz = cx.graph.transpose(dz);
            cx.graph.dot(dz, x_adapter)
        });
        cx.give(4, |cx| {
            let z = self.bottleneck(cx.graph, x_adapter, a);
            cx.graph.dot(transposed, z)
        });
    }

    fn class(&self) -> Class {
        Class::Composite
    }

    fn by_rows(&self, _args: &[&TensorType]) -> Option<Vec<usize>> {
        Some(vec![0, 1])
    }

    fn expand(&self, graph: &mut Graph, args: &[Value]) -> Option<Value> {
        let base = graph.linear(args[0], args[2], None);
        let z = self.bottleneck(graph, args[1], args[3]);
        let adapter = graph.linear(z, args[4], None);
        Some(graph.add(base, adapter))
    }

    fn samples() -> Vec<Sample> {
        let lora = || Sample::new(LoraLinear { scale: Real::new(2.0) });
        vec![lora().f32(&[7, 12]).f32(&[7, 12]).f32(&[9, 12]).f32(&[3, 12]).f32(&[9, 3])]
    }
}

impl LoraLinear {
    /// `scale · x·Aᵀ`, `(M, r)`
    fn bottleneck(&self, graph: &mut Graph, x: Value, a: Value) -> Value {
        let z = graph.linear(x, a, None);
        graph.scale(z, self.scale.get())
    }
}
