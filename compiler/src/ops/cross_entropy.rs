//! `cross_entropy(logits, targets)`: negative log-likelihood of one class a row.

use super::rule::{Class, Gen, Sample, arity};
use crate::grad::Backward;
use crate::ir::{Graph, Value};
use crate::types::{DType, TensorType};

op! {
    /// `log(sum(exp(logits))) - logits[target]` per row: `logits (n, V)`, `targets (n)`, result `(n)`.
    CrossEntropy = "cross_entropy" {},

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [logits, targets] = arity(args)?;
        if logits.dtype != DType::F32 || logits.rank() != 2 || targets.dtype != DType::U32 || targets.shape != logits.shape[..1] {
            return Err("takes f32[n,V] and u32[n]".into());
        }
        Ok(TensorType::f32(targets.shape.clone()))
    }

    // dlogits = dy · (softmax(logits) - onehot(target))
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let rows = cx.graph.shape(cx.dy)[0];
            let logits = cx.args[0];
            let (weights, total, _) = softmax_parts(cx.graph, logits);
            let p = cx.graph.div(weights, total);
            let is_target = is_target(cx.graph, logits, cx.args[1]);
            let onehot = cx.graph.cast(is_target, DType::F32);
            let difference = cx.graph.sub(p, onehot);
            let dy = cx.graph.reshape(cx.dy, &[rows, 1]);
            cx.graph.mul(difference, dy)
        });
    }

    fn class(&self) -> Class {
        Class::Composite
    }

    fn expand(&self, graph: &mut Graph, args: &[Value]) -> Option<Value> {
        let logits = args[0];
        let (_, total, largest) = softmax_parts(graph, logits);
        let log_total = graph.log(total);
        let log_sum_exp = graph.add(log_total, largest);
        let is_target = is_target(graph, logits, args[1]);
        let zero = graph.zeros_like(logits);
        let chosen = graph.select(is_target, logits, zero);
        let logit = graph.sum(chosen, &[1]);
        let nll = graph.sub(log_sum_exp, logit);
        let rows = graph.shape(logits)[0];
        Some(graph.reshape(nll, &[rows]))
    }

    fn samples() -> Vec<Sample> {
        let wide = Gen::Uniform(-4.0, 4.0);
        vec![Sample::new(CrossEntropy {}).arg(DType::F32, &[5, 23], wide).arg(DType::U32, &[5], Gen::Index(23))]
    }
}

/// `(exp(logits - max) (n, V), its row sums (n, 1), max (n, 1))`
fn softmax_parts(graph: &mut Graph, logits: Value) -> (Value, Value, Value) {
    let largest = graph.reduce_max(logits, &[1]);
    let largest = graph.stop_gradient(largest);
    let shifted = graph.sub(logits, largest);
    let weights = graph.exp(shifted);
    (weights, graph.sum(weights, &[1]), largest)
}

/// Whether a column is the row's target, `(n, V)`.
fn is_target(graph: &mut Graph, logits: Value, targets: Value) -> Value {
    let shape = graph.shape(logits).to_vec();
    let column = graph.iota(&shape, 1);
    let targets = graph.reshape(targets, &[shape[0], 1]);
    graph.equal(column, targets)
}
