//! The f64 interpreter: the meaning of a graph, and the oracle for every faster form of it.

use std::collections::HashMap;

use crate::ir::{Graph, Value};
use crate::ops::{Op, input::Input};
use crate::tensor::Tensor;
use crate::types::TensorType;

/// Evaluates the values needed for the outputs; entry `v` is `None` where `v` is not needed.
///
/// # Errors
/// Names the first leaf that `leaves` lacks or that has another type.
pub fn evaluate(graph: &Graph, leaves: &HashMap<String, Tensor>) -> Result<Vec<Option<Tensor>>, String> {
    let live = graph.live();
    let mut results: Vec<Option<Tensor>> = vec![None; graph.len()];
    let leaf_types: HashMap<Value, &str> = graph.leaves().map(|leaf| (leaf.value, leaf.name)).collect();
    for value in graph.values().filter(|v| live[v.index()]) {
        let node = graph.node(value);
        let result = match leaf_types.get(&value) {
            Some(&name) => {
                let given = leaves.get(name).ok_or_else(|| format!("no value for leaf `{name}`"))?;
                if given.ty != node.ty {
                    return Err(format!("leaf `{name}` is {}, got {}", node.ty, given.ty));
                }
                given.clone()
            }
            None => {
                let args: Vec<&Tensor> = node.args.iter().filter_map(|a| results[a.index()].as_ref()).collect();
                node.op.eval(&args, &node.ty)
            }
        };
        results[value.index()] = Some(result);
    }
    Ok(results)
}

/// Evaluates the outputs by name.
pub fn evaluate_outputs(graph: &Graph, leaves: &HashMap<String, Tensor>) -> Result<HashMap<String, Tensor>, String> {
    let results = evaluate(graph, leaves)?;
    let pick = |(name, value): &(String, Value)| results[value.index()].clone().map(|t| (name.clone(), t));
    Ok(graph.outputs().iter().filter_map(pick).collect())
}

/// Evaluates a composite by evaluating its expansion.
pub(crate) fn through_expansion(
    args: &[&Tensor],
    ty: &TensorType,
    expand: impl FnOnce(&mut Graph, &[Value]) -> Option<Value>,
) -> Tensor {
    let mut graph = Graph::new();
    let mut leaves = HashMap::new();
    let mut values = Vec::new();
    for (position, arg) in args.iter().enumerate() {
        let name = position.to_string();
        values.push(
            graph.push(Op::from(Input { name: name.clone(), dtype: arg.ty.dtype, shape: arg.ty.shape.clone() }), &[]),
        );
        leaves.insert(name, (*arg).clone());
    }
    let root = expand(&mut graph, &values).expect("an operation without its own evaluation has an expansion");
    graph.output("root", root);
    let mut results = evaluate(&graph, &leaves).expect("an expansion uses nothing but its arguments");
    let result = results[root.index()].take().expect("the root is live");
    debug_assert_eq!(&result.ty, ty);
    result
}
