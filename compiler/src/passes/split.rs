//! Frozen tables that are larger than what a device binds at once, in parts.
//!
//! ```text
//! x · Wᵀ = concat(x · W₀ᵀ, x · W₁ᵀ, ..)                    W = [W₀; W₁; ..], cut between rows
//! x · W  = x₀ · W₀ + x₁ · W₁ + ..                          x = [x₀, x₁, ..], cut between columns
//! gather(W, i) = gather(W₀, i) + gather(W₁, i - start₁) + ..
//! ```
//!
//! A row that an index does not name is zero, so gathered parts add up.

use super::rebuild;
use crate::ir::{Graph, Value};
use crate::ops::Op;
use crate::ops::weight::Weight;
use crate::types::{DType, TensorType};

/// The name of a part of a table: `count` rows from `start` on.
pub fn rows_name(name: &str, start: usize, count: usize) -> String {
    format!("{name}@{start}x{count},rows")
}

/// Cuts every matrix among the weights that takes more than `limit` bytes, where it is a factor of a product or gathered
/// from. Other uses stay, and are refused by name when the plan is put together.
pub(super) fn apply(graph: &Graph, limit: u64) -> Graph {
    rebuild(graph, |result, node| {
        let cut = match (&node.op, node.args.as_slice()) {
            (Op::Dot(_), &[a, b]) => product(result, a, b, limit),
            (Op::Gather(op), &[table, index]) => {
                Table::of(result, table, limit).filter(|t| !t.transposed).map(|t| gather(result, &t, index, op.unique))
            }
            _ => None,
        };
        cut.unwrap_or_else(|| result.push(node.op.clone(), &node.args))
    })
}

/// A matrix that is too large, behind views.
struct Table {
    weight: Weight,
    transposed: bool,
    /// Rows of each part but the last.
    each: usize,
}

impl Table {
    fn of(graph: &Graph, value: Value, limit: u64) -> Option<Self> {
        let mut transposed = false;
        let mut at = value;
        loop {
            let node = graph.node(at);
            match &node.op {
                Op::Weight(weight) => {
                    let &[rows, columns] = weight.shape.as_slice() else { return None };
                    if node.ty.bytes() <= limit {
                        return None;
                    }
                    let most = limit / TensorType::new(weight.dtype, [1, columns]).bytes().max(1);
                    let most = usize::try_from(most).unwrap_or(usize::MAX).max(1);
                    let each = rows.div_ceil(rows.div_ceil(most));
                    return Some(Self { weight: weight.clone(), transposed, each });
                }
                Op::Permute(op) if op.order == [1, 0] => transposed = !transposed,
                Op::Widen(_) | Op::Tag(_) | Op::StopGradient(_) => {}
                _ => return None,
            }
            at = node.args[0];
        }
    }

    /// First row and value of each part, seen as the whole was.
    fn parts(&self, graph: &mut Graph) -> Vec<(usize, Value)> {
        let (rows, columns) = (self.weight.shape[0], self.weight.shape[1]);
        let part = |start: usize| {
            let count = self.each.min(rows - start);
            let name = rows_name(&self.weight.name, start, count);
            let leaf = Weight { name: name.clone(), dtype: self.weight.dtype, shape: vec![count, columns] };
            let mut value = graph.named(Some(name), |graph| graph.push(leaf, &[]));
            if self.weight.dtype.is_storage() {
                value = graph.widen(value);
            }
            (start, if self.transposed { graph.transpose(value) } else { value })
        };
        (0..rows).step_by(self.each).map(part).collect()
    }
}

/// The product of two matrices one of which is too large; `None` if neither is.
fn product(graph: &mut Graph, a: Value, b: Value, limit: u64) -> Option<Value> {
    if let Some(table) = Table::of(graph, b, limit) {
        let parts = table.parts(graph);
        return Some(match table.transposed {
            true => {
                let columns: Vec<Value> = parts.into_iter().map(|(_, part)| graph.dot(a, part)).collect();
                graph.concat(&columns, 1)
            }
            false => sum(graph, parts, |graph, start, part| {
                let count = graph.shape(part)[0];
                let columns = graph.slice(a, 1, start, count);
                graph.dot(columns, part)
            }),
        });
    }
    let table = Table::of(graph, a, limit)?;
    let parts = table.parts(graph);
    Some(match table.transposed {
        false => {
            let rows: Vec<Value> = parts.into_iter().map(|(_, part)| graph.dot(part, b)).collect();
            graph.concat(&rows, 0)
        }
        true => sum(graph, parts, |graph, start, part| {
            let count = graph.shape(part)[1];
            let rows = graph.slice(b, 0, start, count);
            graph.dot(part, rows)
        }),
    })
}

fn gather(graph: &mut Graph, table: &Table, index: Value, unique: bool) -> Value {
    let parts = table.parts(graph);
    sum(graph, parts, |graph, start, part| {
        let index = if start == 0 { index } else { counted_from(graph, index, start) };
        graph.gather(part, index, unique)
    })
}

fn sum(
    graph: &mut Graph,
    parts: Vec<(usize, Value)>,
    mut term: impl FnMut(&mut Graph, usize, Value) -> Value,
) -> Value {
    let mut terms = parts.into_iter();
    let (start, part) = terms.next().expect("a table that is cut has parts");
    let first = term(graph, start, part);
    terms.fold(first, |sum, (start, part)| {
        let next = term(graph, start, part);
        graph.add(sum, next)
    })
}

/// `index - start`, and an index that names no row for what is before `start`. What is behind the part's end names no row
/// either.
fn counted_from(graph: &mut Graph, index: Value, start: usize) -> Value {
    let shape = graph.shape(index).to_vec();
    let first = graph.constant(DType::U32, start as f64, &shape);
    let none = graph.constant(DType::U32, f64::from(u32::MAX), &shape);
    let is_before = graph.less(index, first);
    // What is subtracted from is never smaller, as u32 has no sign.
    let index = graph.select(is_before, first, index);
    let inside = graph.sub(index, first);
    graph.select(is_before, none, inside)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::eval::evaluate_outputs;
    use crate::ir::LeafKind;
    use crate::tensor::Tensor;

    #[test]
    fn a_table_in_parts_is_the_table() {
        let mut g = Graph::new();
        let x = g.input("x", DType::F32, &[2, 3]);
        let y = g.input("y", DType::F32, &[2, 7]);
        let index = g.input("index", DType::U32, &[4]);
        let table = g.weight("table", &[7, 3]);
        let transposed = g.transpose(table);
        let (xt, yt) = (g.transpose(x), g.transpose(y));
        let results = [
            ("rows", g.gather(table, index, false)),
            ("x·Wᵀ", g.dot(x, transposed)),
            ("y·W", g.dot(y, table)),
            ("W·xᵀ", g.dot(table, xt)),
            ("Wᵀ·yᵀ", g.dot(transposed, yt)),
        ];
        results.into_iter().for_each(|(name, value)| g.output(name, value));
        let run = |g: &Graph| {
            g.verify().unwrap();
            let content = |at: &[usize]| (at[0] * 10 + at.last().unwrap()) as f64;
            let leaves: HashMap<String, Tensor> = g
                .leaves()
                .map(|leaf| {
                    let start = leaf.name.strip_prefix("table@").map_or(0, |rest| rest[..1].parse().unwrap());
                    let tensor = match leaf.name {
                        "index" => Tensor::new(leaf.ty.clone(), vec![0.0, 6.0, 2.0, f64::from(u32::MAX)]),
                        _ => Tensor::from_fn(leaf.ty, |at| content(&[at[0] + start, at[at.len() - 1]])),
                    };
                    (leaf.name.to_owned(), tensor)
                })
                .collect();
            let live = g.live();
            let weights = g.leaves().filter(|leaf| leaf.kind == LeafKind::Weight && live[leaf.value.index()]);
            (weights.count(), evaluate_outputs(g, &leaves).unwrap())
        };
        let (whole, parts) = (run(&apply(&g, 84)), run(&apply(&g, 40)));
        assert_eq!((whole.0, parts.0), (1, 3));
        assert_eq!(whole.1, parts.1);
        assert_eq!(whole.1["rows"].data[3..6], [60.0, 61.0, 62.0]);
        assert_eq!(whole.1["rows"].data[9..], [0.0; 3]);
    }
}
