//! Smaller graphs that fail like a large one.

use std::collections::{BTreeSet, HashMap};

use viral_compiler::eval::evaluate;
use viral_compiler::ops::{Class, input::Input};
use viral_compiler::{Graph, Value};

use super::make::{self, Made};

/// The smallest graph found for which `fails` still holds: fewer operations, one output, inputs instead of computations.
pub(crate) fn smallest(seed: u64, operations: usize, fails: &dyn Fn(&Made) -> bool) -> Made {
    let shorter = (0..operations).map(|operations| make::graph(seed, operations)).find(fails);
    let mut made = shorter.unwrap_or_else(|| make::graph(seed, operations));
    let names: Vec<String> = made.graph.outputs().iter().map(|(name, _)| name.clone()).collect();
    for name in names {
        let left: Vec<&(String, Value)> = made.graph.outputs().iter().filter(|(other, _)| *other != name).collect();
        if left.is_empty() {
            break;
        }
        let kept: BTreeSet<String> = left.into_iter().map(|(name, _)| name.clone()).collect();
        let smaller = rebuilt(&made, &kept, None);
        if fails(&smaller) {
            made = smaller;
        }
    }
    let kept: BTreeSet<String> = made.graph.outputs().iter().map(|(name, _)| name.clone()).collect();
    made = rebuilt(&made, &kept, None);
    // From the end, where a cut removes most.
    let mut position = made.graph.len();
    while position > 0 {
        position -= 1;
        let Some(value) = made.graph.values().nth(position) else { continue };
        if made.graph.node(value).op.class() == Class::Leaf {
            continue;
        }
        let smaller = rebuilt(&made, &kept, Some(value));
        if fails(&smaller) {
            made = smaller;
            position = position.min(made.graph.len());
        }
    }
    made
}

/// What the outputs `kept` need, with an input in the place of `cut`.
fn rebuilt(made: &Made, kept: &BTreeSet<String>, cut: Option<Value>) -> Made {
    let results = evaluate(&made.graph, &made.leaves).expect("a made graph can be evaluated");
    let mut needed: BTreeSet<Value> = BTreeSet::new();
    let outputs = || made.graph.outputs().iter().filter(|(name, _)| kept.contains(name));
    let mut stack: Vec<Value> = outputs().map(|&(_, value)| value).collect();
    while let Some(value) = stack.pop() {
        if needed.insert(value) && Some(value) != cut {
            stack.extend(&made.graph.node(value).args);
        }
    }
    let (mut graph, mut leaves, mut mapped) = (Graph::new(), made.leaves.clone(), HashMap::<Value, Value>::new());
    for value in needed {
        let node = made.graph.node(value);
        let new = if Some(value) == cut {
            let (name, ty) = (format!("cut{}", leaves.len()), &node.ty);
            leaves.extend(results[value.index()].clone().map(|tensor| (name.clone(), tensor)));
            graph.push(Input { name, dtype: ty.dtype, shape: ty.shape.clone() }, &[])
        } else {
            let args: Vec<Value> = node.args.iter().map(|arg| mapped[arg]).collect();
            graph.push(node.op.clone(), &args)
        };
        mapped.insert(value, new);
    }
    for (name, value) in outputs() {
        graph.output(name.clone(), mapped[value]);
    }
    Made { graph, leaves }
}
