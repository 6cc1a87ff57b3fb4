//! Graph-to-graph passes. Each takes a graph and returns an equivalent one; [`compile`](crate::compile()) calls them in
//! order and verifies the result of each.

pub(crate) mod composites;
pub(crate) mod matrices;
pub(crate) mod parts;
mod reductions;
pub(crate) mod remat;
mod simplify;
mod split;
mod storage;

pub use remat::{BLOCK, Remat};
pub use split::rows_name;
pub use storage::tables;

use std::collections::BTreeSet;

use crate::compile::Options;
use crate::ir::{Graph, Node, Value};
use crate::ops::Class;

/// A named pass over graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    /// Stores frozen tensors in the types that the options name.
    Storage,
    /// Replaces composites without a kernel of their own by their expansions.
    Composites,
    /// Cuts frozen tables that are larger than what the device binds at once.
    Split,
    /// Brings reductions into the shapes that have kernels, and cuts long ones for parallelism.
    Reductions,
    /// Removes what has no effect: identities, views of views, dead nodes.
    Simplify,
    /// Rounds the operands of large products to 16-bit floats, for cooperative matrices.
    Matrices,
    /// Cuts long sums of products with few results, so that a device has enough to do.
    Parts,
    /// Gives every output a value of its own, so that it has memory of its own.
    Outputs,
}

impl Pass {
    /// All passes, in the order in which they run.
    pub const ALL: [Pass; 8] = [
        Pass::Storage,
        Pass::Composites,
        Pass::Split,
        Pass::Reductions,
        Pass::Simplify,
        Pass::Matrices,
        Pass::Parts,
        Pass::Outputs,
    ];

    /// Name for dumps and for switching the pass off.
    pub fn name(self) -> &'static str {
        match self {
            Pass::Storage => "storage",
            Pass::Composites => "composites",
            Pass::Split => "split",
            Pass::Simplify => "simplify",
            Pass::Matrices => "matrices",
            Pass::Parts => "parts",
            Pass::Outputs => "outputs",
            Pass::Reductions => "reductions",
        }
    }

    /// Whether code generation can do without it.
    pub fn optional(self) -> bool {
        self == Pass::Simplify
    }

    /// Applies the pass.
    pub fn run(self, graph: &Graph, options: &Options) -> Graph {
        match self {
            Pass::Storage => storage::apply(graph, &options.storage),
            Pass::Composites => composites::expand(graph, options),
            Pass::Split => split::apply(graph, options.target.max_binding_bytes.min(options.target.max_buffer_bytes)),
            Pass::Reductions => rebuild(graph, reductions::rule),
            Pass::Simplify => rebuild(graph, simplify::rule),
            Pass::Matrices => match (options.target.cooperative_matrix, options.cooperative) {
                (Some(edge), Some(least)) => matrices::apply(graph, edge as usize, least, options),
                _ => graph.clone(),
            },
            Pass::Parts => parts::apply(graph, options),
            Pass::Outputs => separate_outputs(graph),
        }
    }
}

/// Puts a tag on outputs that are leaves or that another output is already; a tagged output is a copy.
fn separate_outputs(graph: &Graph) -> Graph {
    let mut result = rebuild(graph, |result, node| result.push(node.op.clone(), &node.args));
    let mut taken = BTreeSet::new();
    for (name, value) in result.take_outputs() {
        let is_leaf = result.node(value).op.class() == Class::Leaf;
        let value = match taken.insert(value) && !is_leaf {
            true => value,
            false => {
                let label = result.name(value).map(str::to_owned);
                result.named(label, |result| result.tag(value, format!("output {name}")))
            }
        };
        result.output(name, value);
    }
    result
}

/// Makes an output a copy of what it was: the value is computed aside, and moved to the output's place afterwards.
pub(crate) fn set_aside(graph: &Graph, value: Value) -> Graph {
    let mut result = graph.clone();
    for (name, output) in result.take_outputs() {
        let label = result.name(output).map_or_else(|| name.clone(), str::to_owned);
        let output = match output == value {
            true => result.named(Some(label), |result| result.tag(value, format!("output {name}"))),
            false => output,
        };
        result.output(name, output);
    }
    result
}

/// Builds a graph anew from what its outputs need, one node at a time: `rule` gets the node with its arguments in the new
/// graph and returns the value that stands for it. Names survive.
fn rebuild(graph: &Graph, mut rule: impl FnMut(&mut Graph, &Node) -> Value) -> Graph {
    rebuild_with(graph, |result, _, node| rule(result, node))
}

/// As [`rebuild`]; `rule` also gets the value that the node was.
pub(crate) fn rebuild_with(graph: &Graph, mut rule: impl FnMut(&mut Graph, Value, &Node) -> Value) -> Graph {
    let live = graph.live();
    let mut result = Graph::new();
    let mut mapped: Vec<Option<Value>> = vec![None; graph.len()];
    for value in graph.values().filter(|v| live[v.index()]) {
        let mut node = graph.node(value).clone();
        node.args = node.args.iter().filter_map(|a| mapped[a.index()]).collect();
        let name = graph.name(value).map(str::to_owned);
        mapped[value.index()] = Some(result.named(name, |result| rule(result, value, &node)));
    }
    for (name, value) in graph.outputs() {
        if let Some(value) = mapped[value.index()] {
            result.output(name.clone(), value);
        }
    }
    result
}
