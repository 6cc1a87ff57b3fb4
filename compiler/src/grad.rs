//! Reverse-mode differentiation, graph to graph.
//!
//! The walk visits only nodes on a path from a wanted parameter to the loss. Each rule is told which of its arguments
//! want a gradient, so nothing is built for a frozen weight, below the lowest trainable tensor, or above the loss.

use crate::ir::{Graph, Value};
use crate::types::DType;

/// Ends the names of gradients.
const MARK: &str = ".grad";

/// Whether a value belongs to the backward half of a graph, as far as its name tells.
pub(crate) fn is_gradient(graph: &Graph, value: Value) -> bool {
    graph.name(value).is_some_and(|name| name.ends_with(MARK))
}

/// What a gradient rule sees: the node, the gradient of its result, and which arguments want one.
pub struct Backward<'g> {
    /// The graph that the rule adds nodes to.
    pub graph: &'g mut Graph,
    /// Arguments of the node.
    pub args: &'g [Value],
    /// Result of the node.
    pub out: Value,
    /// Gradient of the loss with respect to the result, of the result's shape.
    pub dy: Value,
    wanted: &'g [bool],
    grads: Vec<Option<Value>>,
}

impl Backward<'_> {
    /// Whether argument `position` wants a gradient.
    pub fn wants(&self, position: usize) -> bool {
        self.wanted[position]
    }

    /// Computes and records the gradient of argument `position`, if it is wanted.
    pub fn give(&mut self, position: usize, gradient: impl FnOnce(&mut Self) -> Value) {
        if self.wants(position) {
            let gradient = gradient(self);
            debug_assert_eq!(self.graph.shape(gradient), self.graph.shape(self.args[position]), "gradient shape");
            self.grads[position] = Some(gradient);
        }
    }

    /// Differentiates the expansion of a composite instead of using a rule of its own.
    pub fn through_expansion(&mut self, expand: impl FnOnce(&mut Graph, &[Value]) -> Option<Value>) {
        let Some(root) = expand(self.graph, self.args) else { return };
        let dy = self.graph.stop_gradient(self.dy);
        let product = self.graph.mul(root, dy);
        let loss = self.graph.sum_all(product);
        let inner = gradients(self.graph, loss, self.args);
        for (position, gradient) in inner.into_iter().enumerate() {
            if let Some(gradient) = gradient {
                self.give(position, |_| gradient);
            }
        }
    }
}

/// Adds the gradient of the scalar `loss` with respect to each of `wanted` to the graph.
///
/// An entry is `None` where the loss does not depend on the value.
pub fn gradients(graph: &mut Graph, loss: Value, wanted: &[Value]) -> Vec<Option<Value>> {
    graph.begin_backward();
    let on_path = depends_on(graph, loss, wanted);
    let mut grads: Vec<Option<Value>> = vec![None; loss.index() + 1];
    let shape = graph.shape(loss).to_vec();
    grads[loss.index()] = Some(graph.named(None, |g| g.constant(DType::F32, 1.0, &shape)));
    for index in (0..=loss.index()).rev() {
        let (Some(dy), true) = (grads[index], on_path[index]) else { continue };
        let value = Value::from_index(index);
        let node = graph.node(value).clone();
        let is_second = is_gradient(graph, value);
        let name = graph.name(value).map(|n| if is_second { n.to_owned() } else { format!("{n}{MARK}") });
        let mask: Vec<bool> = node.args.iter().map(|a| on_path[a.index()]).collect();
        graph.named(name, |graph| {
            let mut cx =
                Backward { graph, args: &node.args, out: value, dy, wanted: &mask, grads: vec![None; mask.len()] };
            node.op.grad(&mut cx);
            let contributions = cx.grads;
            for (&arg, contribution) in node.args.iter().zip(contributions) {
                let Some(contribution) = contribution else { continue };
                let slot = &mut grads[arg.index()];
                *slot = Some(match *slot {
                    Some(earlier) => graph.add(earlier, contribution),
                    None => contribution,
                });
            }
        });
    }
    wanted.iter().map(|w| grads.get(w.index()).copied().flatten()).collect()
}

/// For every value up to `root`: whether it depends on one of `wanted`.
fn depends_on(graph: &Graph, root: Value, wanted: &[Value]) -> Vec<bool> {
    let mut depends = vec![false; root.index() + 1];
    for value in wanted.iter().filter(|w| w.index() <= root.index()) {
        depends[value.index()] = true;
    }
    for index in 0..=root.index() {
        let node = graph.node(Value::from_index(index));
        // A gradient stops where it is told to, and at values that are not continuous.
        let continuous = node.ty.dtype == DType::F32 && !matches!(node.op, crate::ops::Op::StopGradient(_));
        if continuous && node.args.iter().any(|a| depends[a.index()]) {
            depends[index] = true;
        }
    }
    depends
}
