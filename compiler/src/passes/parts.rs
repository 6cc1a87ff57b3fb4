//! Long sums of products with few results, cut into parts: one tile of results is one workgroup, and a GPU has many.
//!
//! ```text
//! a · b = sum over p of a[.., p, ..] · b[p, .., ..]        the gradients of narrow maps, above all
//! ```
//!
//! The parts are added up in an order that the shapes alone decide.

use viral_shaders::{DeviceClass, Target};

use super::rebuild;
use crate::compile::Options;
use crate::ir::{Graph, Node, Value};
use crate::ops::Op;
use crate::ops::sum::Sum;
use crate::tunables;

/// Rows and columns of a workgroup's tile.
const TILE: usize = 64;
/// Workgroups that keep a GPU busy.
const MANY: usize = 128;
/// Terms that are worth a part of their own.
const LONG: usize = 64;

/// Cuts the sums of products whose results are too few.
pub(super) fn apply(graph: &Graph, options: &Options) -> Graph {
    rebuild(graph, |result, node| {
        let parts = if matches!(node.op, Op::Dot(_)) { tunables::parts(result, node, options) } else { 1 };
        if parts == 1 { result.push(node.op.clone(), &node.args) } else { cut(result, node, parts) }
    })
}

/// How many parts a product's sums are cut into, where nobody has measured. Software devices have few cores, for which only the
/// longest sums (a gradient over a vocabulary) are worth it.
pub(crate) fn by_rule(graph: &Graph, node: &Node, target: &Target) -> usize {
    let (shape, rank) = (&node.ty.shape, node.ty.rank());
    let tiles = shape[rank - 2].div_ceil(TILE) * shape[rank - 1].div_ceil(TILE);
    let terms = graph.shape(node.args[0])[rank - 1];
    let are_short = target.class == DeviceClass::Cpu && terms < MANY * LONG;
    if are_short || !can_be_cut(node) || 2 * tiles > MANY {
        return 1;
    }
    fitting(graph, node, MANY / tiles)
}

/// Whether a product may be cut: only a single one is.
pub(crate) fn can_be_cut(node: &Node) -> bool {
    node.ty.shape[..node.ty.rank() - 2].iter().product::<usize>() == 1
}

/// The largest number of parts, up to `most`, that are equal and long enough.
pub(crate) fn fitting(graph: &Graph, node: &Node, most: usize) -> usize {
    let terms = graph.shape(node.args[0])[node.ty.rank() - 1];
    // Four neighbours are read at a time where every part is a multiple of four.
    let fits = |parts: &usize| terms.is_multiple_of(*parts) && (terms / parts).is_multiple_of(4);
    (2..=most.min(terms / LONG)).rev().find(fits).unwrap_or(1)
}

fn cut(graph: &mut Graph, node: &Node, parts: usize) -> Value {
    let [m, n] = [node.ty.shape[node.ty.rank() - 2], node.ty.shape[node.ty.rank() - 1]];
    let terms = graph.shape(node.args[0])[node.ty.rank() - 1] / parts;
    let a = graph.reshape(node.args[0], &[m, parts, terms]);
    let a = graph.permute(a, &[1, 0, 2]);
    let b = graph.reshape(node.args[1], &[parts, terms, n]);
    let products = graph.dot(a, b);
    added_up(graph, products, &node.ty.shape)
}

/// The sum of matrices `(parts, M, N)`, in the form that kernels of reductions take, as a tensor of this shape.
pub(super) fn added_up(graph: &mut Graph, products: Value, shape: &[usize]) -> Value {
    let parts = graph.shape(products)[0];
    let flat = graph.reshape(products, &[1, parts, shape.iter().product()]);
    let sum = graph.push(Sum { axes: vec![1] }, &[flat]);
    graph.reshape(sum, shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile;
    use crate::plan::Command;

    /// The groups of the launches that a product takes.
    fn launches(transposed: [bool; 2], sizes: [usize; 3]) -> Vec<[u32; 3]> {
        launches_on(Target::baseline(), transposed, sizes)
    }

    fn launches_on(target: Target, transposed: [bool; 2], [m, n, k]: [usize; 3]) -> Vec<[u32; 3]> {
        let mut graph = Graph::new();
        let mut factor = |name: &str, transposed: bool, rows: usize, columns: usize| {
            let stored = if transposed { [columns, rows] } else { [rows, columns] };
            let value = graph.weight(name, &stored);
            if transposed { graph.transpose(value) } else { value }
        };
        let (a, b) = (factor("a", transposed[0], m, k), factor("b", transposed[1], k, n));
        let c = graph.dot(a, b);
        graph.output("c", c);
        let plan = compile(&graph, &Options::new(target)).unwrap();
        let dispatches = plan.commands.iter().filter_map(|command| match command {
            Command::Dispatch(dispatch) => Some(dispatch.groups),
            Command::Clear(_) => None,
        });
        dispatches.collect()
    }

    #[test]
    fn software_devices_cut_the_longest_sums_only() {
        let launches = |sizes| {
            let target = Target { class: DeviceClass::Cpu, ..Target::baseline() };
            launches_on(target, [false, false], sizes).len()
        };
        assert_eq!(launches([32, 512, 32_000]), 3);
        assert_eq!(launches([512, 16, 1112]), 1);
        assert_eq!(launches([600, 512, 32_000]), 1);
    }

    #[test]
    fn a_long_sum_of_few_results_becomes_many_products_and_a_sum() {
        for transposed in [[false, false], [false, true], [true, false], [true, true]] {
            let found = launches(transposed, [32, 512, 32_000]);
            // Products, their sum, and a copy to where the output lies; operands are read where they are.
            assert_eq!((found.len(), found[0]), (3, [8 * 16, 1, 1]), "{transposed:?}");
            let found = launches(transposed, [512, 16, 1112]);
            assert_eq!((found.len(), found[0]), (3, [8 * 2, 1, 1]), "{transposed:?}");
            assert_eq!(launches(transposed, [1112, 512, 1112]), [[18 * 8, 1, 1]]);
            assert_eq!(launches(transposed, [64, 64, 96]).len(), 1);
        }
    }
}
