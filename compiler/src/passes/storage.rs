//! Frozen tensors in storage types.

use std::collections::BTreeMap;

use super::rebuild;
use crate::ir::Graph;
use crate::ops::Op;
use crate::ops::weight::Weight;
use crate::types::DType;

/// Makes each weight that `types` names one of that storage type, where its shape allows it, and reads it through
/// [`widen`](crate::ops::widen::Widen): nothing else changes, so a graph is built without a thought to how its weights
/// are stored.
pub(super) fn apply(graph: &Graph, types: &BTreeMap<String, DType>) -> Graph {
    rebuild(graph, |result, node| {
        if let Op::Weight(weight) = &node.op
            && let Some(&dtype) = types.get(&weight.name)
            && dtype.is_storage()
            && dtype.can_store(&weight.shape)
        {
            let stored = result.push(Weight { dtype, ..weight.clone() }, &[]);
            return result.widen(stored);
        }
        result.push(node.op.clone(), &node.args)
    })
}
