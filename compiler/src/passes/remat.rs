//! Rematerialisation: values of the forward pass that the backward pass computes again instead of keeping.
//!
//! A model tags the input of each of its blocks. Whatever the backward pass reads from inside a block becomes a second
//! computation from that input, which alone stays in memory. Reference: T. Chen et al., Training Deep Nets with Sublinear
//! Memory Cost, 2016.

use std::collections::HashMap;

use crate::ir::{Graph, Node, Value};
use crate::ops::{Class, Op};

/// Label of the tags on block inputs.
pub const BLOCK: &str = "block";
/// Label of the tags that keep a second computation apart from the first: equal nodes would be one node again.
pub(crate) const RECOMPUTE: &str = "recompute";

/// What is computed again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Remat {
    /// Nothing.
    #[default]
    None,
    /// Everything inside a block.
    Block,
    /// What costs little inside a block: matrix products, attention and gathered rows are kept.
    Cheap,
}

/// Applies a policy. The last block is left alone: its values are read as soon as they are there.
pub(crate) fn apply(graph: &Graph, policy: Remat) -> Graph {
    let (Some(backward), true) = (graph.backward_from(), policy != Remat::None) else {
        return graph.clone();
    };
    let block_of = blocks(graph, backward);
    let live = graph.live();
    let mut second = Second {
        graph,
        policy,
        block_of: &block_of,
        result: Graph::new(),
        first: HashMap::new(),
        again: HashMap::new(),
    };
    for value in graph.values().filter(|v| live[v.index()]) {
        let node = graph.node(value);
        let args: Vec<Value> = match value >= backward {
            // An expensive value that the backward pass makes of forward values alone, such as what else the forward kernel
            // can write, is kept like those.
            true if !second.belongs_to_forward(node, backward) => {
                node.args.iter().map(|&arg| second.recomputed(arg)).collect()
            }
            _ => node.args.iter().map(|arg| second.first[arg]).collect(),
        };
        let name = graph.name(value).map(str::to_owned);
        let mapped = second.result.named(name, |result| result.push(node.op.clone(), &args));
        second.first.insert(value, mapped);
    }
    for (name, value) in graph.outputs() {
        let mapped = second.first[value];
        second.result.output(name.clone(), mapped);
    }
    second.result
}

/// For every value inside a block, the tagged input of that block: a model builds one block after the other, so a block is
/// what was born between its input and the next one's.
fn blocks(graph: &Graph, backward: Value) -> HashMap<Value, Value> {
    let is_input = |value: &Value| matches!(&graph.node(*value).op, Op::Tag(tag) if tag.label == BLOCK);
    let inputs: Vec<Value> = graph.values().filter(|value| *value < backward && is_input(value)).collect();
    let mut block_of = HashMap::new();
    for pair in inputs.windows(2) {
        let (input, next) = (pair[0], pair[1]);
        let inside = graph.values().filter(|value| *value > input && *value < next);
        let computed = inside.filter(|&value| !matches!(graph.node(value).op.class(), Class::Leaf | Class::Index));
        block_of.extend(computed.map(|value| (value, input)));
    }
    block_of
}

/// A graph in which some values exist twice.
struct Second<'g> {
    graph: &'g Graph,
    policy: Remat,
    block_of: &'g HashMap<Value, Value>,
    result: Graph,
    /// Each value as the forward pass has it.
    first: HashMap<Value, Value>,
    /// Each value that is computed again, and what is kept of a block behind its barrier.
    again: HashMap<Value, Value>,
}

impl Second<'_> {
    /// The value as the backward pass reads it.
    fn recomputed(&mut self, value: Value) -> Value {
        if self.is_kept(value) {
            return self.first[&value];
        }
        if let Some(&known) = self.again.get(&value) {
            return known;
        }
        let input = self.block_of[&value];
        let node = self.graph.node(value);
        let mut args = Vec::with_capacity(node.args.len());
        for &arg in &node.args {
            // What changes from step to step and is kept is read behind a barrier, or the second computation would equal
            // the first.
            let varies =
                arg == input || self.block_of.contains_key(&arg) || matches!(self.graph.node(arg).op, Op::Input(_));
            args.push(if varies && self.is_kept(arg) { self.barrier(arg) } else { self.recomputed(arg) });
        }
        let name = self.graph.name(value).map(|name| format!("{name}.again"));
        let again = self.result.named(name, |result| result.push(node.op.clone(), &args));
        self.again.insert(value, again);
        again
    }

    fn belongs_to_forward(&self, node: &Node, backward: Value) -> bool {
        self.policy == Remat::Cheap && is_expensive(&node.op) && node.args.iter().all(|&arg| arg < backward)
    }

    fn is_kept(&self, value: Value) -> bool {
        let expensive = self.policy == Remat::Cheap && is_expensive(&self.graph.node(value).op);
        expensive || !self.block_of.contains_key(&value)
    }

    fn barrier(&mut self, value: Value) -> Value {
        let first = self.first[&value];
        *self.again.entry(value).or_insert_with(|| self.result.tag(first, RECOMPUTE))
    }
}

/// Operations whose results are worth their memory.
fn is_expensive(op: &Op) -> bool {
    op.class() == Class::Kernel
        || matches!(op, Op::LoraLinear(_) | Op::Attention(_) | Op::AttentionLse(_) | Op::AttentionGrad(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad::gradients;

    fn two_blocks(policy: Remat) -> String {
        let mut g = Graph::new();
        let mut x = g.input("x", crate::types::DType::F32, &[2, 4]);
        let w = g.param("w", &[4, 4]);
        for _ in 0..2 {
            x = g.tag(x, BLOCK);
            let y = g.dot(x, w);
            let y = g.exp(y);
            x = g.mul(y, y);
        }
        let loss = g.sum_all(x);
        let gradient = gradients(&mut g, loss, &[w])[0].unwrap();
        g.output("loss", loss);
        g.output("gradient", gradient);
        let result = apply(&g, policy);
        result.verify().unwrap();
        result.to_string()
    }

    #[test]
    fn blocks_are_computed_again_but_the_last() {
        let count = |text: &str, op: &str| text.lines().filter(|line| line.contains(&format!(" = {op}("))).count();
        let [none, block, cheap] = [Remat::None, Remat::Block, Remat::Cheap].map(two_blocks);
        assert_eq!([none.as_str(), &block, &cheap].map(|text| count(text, "exp")), [2, 3, 3]);
        let products = [none.as_str(), &block, &cheap].map(|text| count(text, "dot"));
        assert_eq!(products, [products[0], products[0] + 1, products[0]]);
    }
}
