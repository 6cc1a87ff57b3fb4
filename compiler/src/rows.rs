//! A few rows of a value, computed for those rows only.
//!
//! A decoder's last state is read where a token is to be predicted, which may be one position in thirty. Behind the last
//! attention nothing looks at other rows, so norms, linear maps and gates need not be computed anywhere else: the rows are
//! taken out of what the last operation across rows leaves, and not out of the end. It is done while the graph is built, so
//! that the backward half, which is derived later, is as short.
//!
//! The *rows* of a value are what lies along its last axis. Operations say which arguments they read row by row
//! ([`OpRule::by_rows`](crate::ops::OpRule::by_rows)); views that keep rows whole are followed here.

use std::collections::{BTreeMap, BTreeSet};

use crate::ir::{Graph, Node, Value};
use crate::ops::Op;
use crate::types::DType;

/// Rows `(n, D)` of `table (R, D)` at `index u32[n]`, each at most once: as [`Graph::gather`], except that a row beyond the table
/// is not zero, but what the operations in between make of zeros and of the other operands.
///
/// Where more than half of the rows are wanted this is a gather. What somebody else reads in full is computed in full, and
/// gathered from.
pub fn at(graph: &mut Graph, table: Value, index: Value) -> Value {
    let (wanted, all) = (graph.ty(index).len(), graph.shape(table).first().copied().unwrap_or(0));
    if 2 * wanted > all {
        return graph.gather(table, index, true);
    }
    let mut rows = Rows { index, of: BTreeMap::new() };
    for value in only_for_rows(graph, table) {
        let name = graph.name(value).map(str::to_owned);
        let picked = graph.named(name, |graph| rows.compute(graph, value));
        rows.of.insert(value, picked);
    }
    rows.at(graph, table)
}

/// Values that nobody reads but by the rows of `table`, in the order in which they are computed.
fn only_for_rows(graph: &Graph, table: Value) -> BTreeSet<Value> {
    let mut wanted = vec![false; graph.len()];
    let mut read_in_full = vec![false; graph.len()];
    wanted[table.index()] = true;
    for &(_, value) in graph.outputs() {
        read_in_full[value.index()] = true;
    }
    let mut found = Vec::new();
    for value in graph.values().rev() {
        let node = graph.node(value);
        // What reads no rows, such as a number, is repeated for free. Graphs share such values between layers.
        let by_rows = if wanted[value.index()] { row_arguments(graph, node) } else { None };
        let by_rows = by_rows.filter(|by_rows| by_rows.is_empty() || !read_in_full[value.index()]);
        for (position, arg) in node.args.iter().enumerate() {
            match &by_rows {
                Some(by_rows) if by_rows.contains(&position) => wanted[arg.index()] = true,
                _ => read_in_full[arg.index()] = true,
            }
        }
        if by_rows.is_some() {
            found.push(value);
        }
    }
    found.reverse();
    // Only rows of reals can be gathered, so the others have to be computed.
    let mut kept = BTreeSet::new();
    for value in found {
        let node = graph.node(value);
        let is_there = |arg: Value| kept.contains(&arg) || graph.ty(arg).dtype == DType::F32;
        if row_arguments(graph, node).is_some_and(|by_rows| by_rows.iter().all(|&at| is_there(node.args[at]))) {
            kept.insert(value);
        }
    }
    kept
}

/// Positions of the arguments of which a row of the result reads the same row; nothing where rows are mixed.
fn row_arguments(graph: &Graph, node: &Node) -> Option<Vec<usize>> {
    let of = |value: Value| graph.shape(value).split_last();
    let (width, above) = node.ty.shape.split_last()?;
    match &node.op {
        Op::Constant(_) => Some(vec![]),
        Op::Reshape(_) if counts(graph, node) => Some(vec![]),
        Op::Reshape(_) => of(node.args[0]).is_some_and(|(from, _)| from == width).then(|| vec![0]),
        Op::Expand(_) => match of(node.args[0])? {
            (_, rows) if rows.iter().all(|&extent| extent == 1) => Some(vec![]),
            (_, rows) => (rows == above).then(|| vec![0]),
        },
        op => {
            let types: Vec<_> = node.args.iter().map(|&arg| graph.ty(arg)).collect();
            op.by_rows(&types)
        }
    }
}

/// Whether a view shows `0, 1, 2, …` in its order.
fn counts(graph: &Graph, view: &Node) -> bool {
    matches!(&graph.node(view.args[0]).op, Op::Iota(iota) if iota.shape.len() == 1)
}

/// The rows that have been taken so far.
struct Rows {
    /// Which. // u32[n]
    index: Value,
    of: BTreeMap<Value, Value>,
}

impl Rows {
    /// The rows of a value, gathered where they have not been computed. // (n, D)
    fn at(&mut self, graph: &mut Graph, value: Value) -> Value {
        if let Some(&rows) = self.of.get(&value) {
            return rows;
        }
        let (flat, _) = graph.flatten_rows(value);
        let rows = graph.gather(flat, self.index, true);
        self.of.insert(value, rows);
        rows
    }

    /// The rows of one of [`only_for_rows`], whose arguments have been taken already.
    fn compute(&mut self, graph: &mut Graph, value: Value) -> Value {
        let node = graph.node(value).clone();
        let width = node.ty.shape.last().copied().unwrap_or(1);
        let shape = [graph.ty(self.index).len(), width];
        let by_rows = row_arguments(graph, &node).unwrap_or_default();
        match &node.op {
            Op::Constant(constant) => graph.constant(node.ty.dtype, constant.value.get(), &shape),
            Op::Reshape(_) if by_rows.is_empty() => self.count(graph, &node, shape),
            Op::Reshape(_) => self.at(graph, node.args[0]),
            Op::Expand(_) => {
                let row = match by_rows.is_empty() {
                    true => {
                        let width = graph.shape(node.args[0]).last().copied().unwrap_or(1);
                        graph.reshape(node.args[0], &[1, width])
                    }
                    false => self.at(graph, node.args[0]),
                };
                graph.expand(row, &shape)
            }
            op => {
                let pick = |(position, &arg): (usize, &Value)| match by_rows.contains(&position) {
                    true => self.at(graph, arg),
                    false => arg,
                };
                let args: Vec<Value> = node.args.iter().enumerate().map(pick).collect();
                graph.push(op.clone(), &args)
            }
        }
    }

    /// Rows of a matrix that counts its elements; the first one for a row beyond its end. // (n, D)
    fn count(&self, graph: &mut Graph, node: &Node, shape: [usize; 2]) -> Value {
        let [n, width] = shape;
        let rows = graph.constant(DType::U32, (node.ty.len() / width.max(1)) as f64, &[n]);
        let zero = graph.constant(DType::U32, 0.0, &[n]);
        let exists = graph.less(self.index, rows);
        let row = graph.select(exists, self.index, zero);
        let width = graph.constant(DType::U32, width as f64, &[n]);
        let first = graph.mul(row, width);
        let first = graph.reshape(first, &[n, 1]);
        let along = graph.iota(&shape, 1);
        graph.add(first, along)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::eval::evaluate_outputs;
    use crate::grad::gradients;
    use crate::ops::Random;
    use crate::tensor::Tensor;
    use crate::types::TensorType;

    const B: usize = 2;
    const T: usize = 7;
    const D: usize = 6;
    const F: usize = 10;
    const R: usize = 3;
    const INDEX: [f64; 5] = [3.0, 12.0, 0.0, 9.0, 4_294_967_295.0];

    /// The second half of a decoder's layer on `x (B, T, D)`, with bias, low-rank adapter and random zeros, and its final norm.
    fn half_layer(g: &mut Graph, x: Value) -> Value {
        let [w, a, b] = [("w", [F, D]), ("a", [R, D]), ("b", [F, R])].map(|(name, shape)| g.param(name, &shape));
        let [down, bias, norm] = [("down", &[D, F][..]), ("bias", &[D]), ("norm", &[D])].map(|(n, s)| g.param(n, s));
        let normed = g.rms_norm(x, norm, 1e-5);
        let (flat, _) = g.flatten_rows(normed);
        let counter = g.iota(&[B * T * D], 0);
        let counter = g.reshape(counter, &[B * T, D]);
        let key = g.constant(DType::U32, 5.0, &[]);
        let random = g.uniform(counter, key);
        let limit = g.constant(DType::F32, 0.3, &[B * T, D]);
        let kept = g.less(limit, random);
        let zero = g.zeros_like(flat);
        let dropped = g.select(kept, flat, zero);
        let gate = g.lora_linear(flat, dropped, w, a, b, 0.5);
        let y = g.silu(gate);
        let y = g.linear(y, down, Some(bias));
        let y = g.reshape(y, &[B, T, D]);
        let h = g.add(x, y);
        let h = g.rms_norm(h, norm, 1e-5);
        g.flatten_rows(h).0
    }

    /// Loss and gradients where rows are taken by `take`, and how many rows products with `w` have.
    fn built(take: impl FnOnce(&mut Graph, Value, Value) -> Value) -> (HashMap<String, Tensor>, Vec<usize>) {
        let mut g = Graph::new();
        let x = g.param("x", &[B, T, D]);
        let index = g.input("index", DType::U32, &[INDEX.len()]);
        let weights = g.input("weights", DType::F32, &[INDEX.len(), D]);
        // Another layer's dropout reads the same number in full.
        let limit = g.constant(DType::F32, 0.3, &[B * T, D]);
        g.output("limit", limit);
        let h = half_layer(&mut g, x);
        let rows = take(&mut g, h, index);
        let rows = g.mul(rows, weights);
        let loss = g.sum_all(rows);
        let params: Vec<(String, Value)> = g
            .leaves()
            .filter(|leaf| !["index", "weights"].contains(&leaf.name))
            .map(|leaf| (leaf.name.to_owned(), leaf.value))
            .collect();
        let wanted: Vec<Value> = params.iter().map(|&(_, value)| value).collect();
        for ((name, _), gradient) in params.iter().zip(gradients(&mut g, loss, &wanted)) {
            g.output(format!("d{name}"), gradient.unwrap());
        }
        g.output("loss", loss);
        g.verify().unwrap();
        let mut random = Random(1);
        let leaves = g.leaves().map(|leaf| {
            let ty = g.ty(leaf.value).clone();
            let data = match leaf.name {
                "index" => INDEX.to_vec(),
                // The last row is padding, which has no weight.
                "weights" => (0..ty.len()).map(|i| if i / D + 1 < INDEX.len() { random.real() } else { 0.0 }).collect(),
                _ => (0..ty.len()).map(|_| 2.0 * random.real() - 1.0).collect(),
            };
            (leaf.name.to_owned(), Tensor::new(ty, data))
        });
        let leaves: HashMap<String, Tensor> = leaves.collect();
        let live = g.live();
        let nodes: Vec<&Node> = g.values().filter(|v| live[v.index()]).map(|v| g.node(v)).collect();
        assert_eq!(nodes.iter().filter(|node| node.op.name() == "gather").count(), 1, "{g}");
        let products = nodes.iter().filter(|node| node.op.name() == "lora_linear");
        let extents = products.map(|node| node.ty.shape[0]).collect();
        (evaluate_outputs(&g, &leaves).unwrap().into_iter().collect(), extents)
    }

    #[test]
    fn losses_and_gradients_are_those_of_rows_that_are_taken_last() {
        let (last, all) = built(|g, h, index| g.gather(h, index, true));
        let (first, few) = built(at);
        assert_eq!((all, few), (vec![B * T], vec![INDEX.len()]));
        assert_eq!(first.len(), last.len());
        for (name, expected) in &last {
            let worst = first[name].data.iter().zip(&expected.data).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-12, "{name}: {worst}");
        }
    }

    #[test]
    fn what_is_read_in_full_is_gathered_from() {
        let (_, extents) = built(|g, h, index| {
            g.output("everything", h);
            at(g, h, index)
        });
        assert_eq!(extents, [B * T]);
    }

    #[test]
    fn most_rows_are_taken_at_the_end() {
        let mut g = Graph::new();
        let x = g.input("x", DType::F32, &[4, 3]);
        let index = g.input("index", DType::U32, &[3]);
        let y = g.exp(x);
        let rows = at(&mut g, y, index);
        assert_eq!(g.node(rows).args, [y, index]);
        assert_eq!(g.ty(rows), &TensorType::f32([3, 3]));
    }
}
