//! Random graphs whose values are tame: finite, of moderate size, and far from every jump, so that f32 and f64 agree.

mod operations;

use std::collections::HashMap;

use viral_compiler::grad::gradients;
use viral_compiler::ops::Random;
use viral_compiler::tensor::Tensor;
use viral_compiler::types::{DType, TensorType};
use viral_compiler::{Graph, Value};

/// Largest magnitude of a value.
const LARGE: f64 = 30.0;
/// Most elements of a value.
const MAX_LEN: usize = 4000;
/// Extents of axes; odd ones, ones that make cells of four, and 1.
const EXTENTS: [usize; 10] = [1, 1, 2, 3, 4, 5, 7, 8, 12, 16];

/// A graph with the content of its leaves.
pub(crate) struct Made {
    pub(crate) graph: Graph,
    pub(crate) leaves: HashMap<String, Tensor>,
}

/// Makes a graph of about `operations` operations. Equal arguments give equal graphs, and a shorter one is the beginning
/// of a longer one, but for its outputs.
pub(crate) fn graph(seed: u64, operations: usize) -> Made {
    let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1));
    let (graph, leaves) = (Graph::new(), HashMap::new());
    let mut maker = Maker { graph, leaves, results: Vec::new(), pool: Vec::new(), random };
    for _ in 0..3 {
        let shape = maker.shape();
        let leaf = maker.leaf(&shape);
        maker.keep(leaf);
    }
    for _ in 0..operations {
        let value = maker.operation();
        maker.keep(value);
    }
    maker.finish();
    Made { graph: maker.graph, leaves: maker.leaves }
}

struct Maker {
    graph: Graph,
    leaves: HashMap<String, Tensor>,
    /// What each node of the graph evaluates to.
    results: Vec<Tensor>,
    /// Real values that later operations may use.
    pool: Vec<Value>,
    random: Random,
}

impl Maker {
    /// Adds a value to the pool if it is tame.
    fn keep(&mut self, value: Value) {
        self.evaluate();
        let result = &self.results[value.index()];
        let tame = result.data.iter().all(|x| x.is_finite() && x.abs() <= LARGE);
        if tame && !self.pool.contains(&value) && (1..=MAX_LEN).contains(&result.data.len()) {
            self.pool.push(value);
        }
    }

    /// Evaluates the nodes that are new.
    fn evaluate(&mut self) {
        self.graph.check().expect("the maker fits shapes together");
        let names: HashMap<Value, String> = self.graph.leaves().map(|leaf| (leaf.value, leaf.name.into())).collect();
        for value in self.graph.values().skip(self.results.len()).collect::<Vec<_>>() {
            let result = match names.get(&value) {
                Some(name) => self.leaves[name].clone(),
                None => {
                    let node = self.graph.node(value);
                    let args: Vec<&Tensor> = node.args.iter().map(|arg| &self.results[arg.index()]).collect();
                    node.op.eval(&args, &node.ty)
                }
            };
            self.results.push(result);
        }
    }

    fn below(&mut self, n: usize) -> usize {
        self.random.below(n)
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn shape(&mut self) -> Vec<usize> {
        if self.chance(5) {
            return vec![2049 + self.below(1000)];
        }
        loop {
            let shape: Vec<usize> = (0..self.below(5)).map(|_| EXTENTS[self.below(EXTENTS.len())]).collect();
            if shape.iter().product::<usize>() <= 600 {
                return shape;
            }
        }
    }

    /// A new input, weight, parameter or state with entries in -1..1.
    fn leaf(&mut self, shape: &[usize]) -> Value {
        let name = format!("x{}", self.leaves.len());
        let value = match self.below(5) {
            0 => self.graph.weight(name.clone(), shape),
            1 => self.graph.state(name.clone(), shape),
            2 => self.graph.input(name.clone(), DType::F32, shape),
            _ => self.graph.param(name.clone(), shape),
        };
        let data = (0..shape.iter().product()).map(|_| 2.0 * self.random.real() - 1.0).collect();
        self.fill(name, TensorType::f32(shape), data);
        value
    }

    /// A new input of indices below `n`, or one above it; all different if they must be.
    fn index(&mut self, count: usize, n: usize, distinct: bool) -> Value {
        let name = format!("x{}", self.leaves.len());
        let mut unused: Vec<usize> = (0..n + count).collect();
        let mut data = Vec::new();
        for _ in 0..count {
            let at = self.below(if distinct { unused.len() } else { n + 1 });
            data.push(if distinct { unused.swap_remove(at) } else { at } as f64);
        }
        let value = self.graph.input(name.clone(), DType::U32, &[count]);
        self.fill(name, TensorType::u32([count]), data);
        value
    }

    fn fill(&mut self, name: String, ty: TensorType, data: Vec<f64>) {
        // What the device stores.
        let tensor = Tensor::from_bytes(&ty, &Tensor::new(ty.clone(), data).to_bytes());
        self.leaves.insert(name, tensor);
    }

    /// A value of the pool, the latest more often.
    fn any(&mut self) -> Value {
        let window = if self.chance(60) { 4 } else { self.pool.len() };
        let back = self.below(window.min(self.pool.len()));
        self.pool[self.pool.len() - 1 - back]
    }

    /// Some value of the pool, or a new leaf, turned into this shape by views.
    fn of_shape(&mut self, shape: &[usize]) -> Value {
        if self.chance(25) {
            return self.leaf(shape);
        }
        let same: Vec<Value> = self.pool.iter().copied().filter(|&v| self.graph.shape(v) == shape).collect();
        if !same.is_empty() && self.chance(70) {
            return same[self.below(same.len())];
        }
        // The same shape with its axes in another order, back in order.
        if shape.len() >= 2 && self.chance(30) {
            let order = self.order(shape.len());
            let mut inverse = vec![0; order.len()];
            order.iter().enumerate().for_each(|(i, &axis)| inverse[axis] = i);
            let permuted: Vec<usize> = order.iter().map(|&axis| shape[axis]).collect();
            let x = self.of_shape(&permuted);
            return self.graph.permute(x, &inverse);
        }
        // An axis repeated.
        if !shape.is_empty() && self.chance(30) {
            let mut narrow = shape.to_vec();
            let axis = self.below(shape.len());
            narrow[axis] = 1;
            let x = self.of_shape(&narrow);
            return self.graph.expand(x, shape);
        }
        let x = self.any();
        let (have, want) = (self.graph.ty(x).len(), shape.iter().product::<usize>());
        let flat = self.graph.reshape(x, &[have]);
        let fitted = if have >= want {
            let start = self.below(have - want + 1);
            self.graph.slice(flat, 0, start, want)
        } else {
            let before = self.below(want - have + 1);
            self.graph.pad(flat, 0, before, want - have - before)
        };
        self.graph.reshape(fitted, shape)
    }

    fn order(&mut self, rank: usize) -> Vec<usize> {
        let mut left: Vec<usize> = (0..rank).collect();
        (0..rank)
            .map(|_| {
                let at = self.below(left.len());
                left.swap_remove(at)
            })
            .collect()
    }

    /// Declares outputs: some values, the gradient of one of them, new content of some states.
    fn finish(&mut self) {
        let y = self.any();
        self.graph.output("y", y);
        for i in 0..self.below(3) {
            let value = self.any();
            self.graph.output(format!("y{i}"), value);
        }
        self.add_gradients(y);
        let states: Vec<(String, Vec<usize>)> = self
            .graph
            .leaves()
            .filter(|leaf| leaf.kind == viral_compiler::ir::LeafKind::State)
            .map(|leaf| (leaf.name.to_owned(), leaf.ty.shape.clone()))
            .collect();
        for (name, shape) in states {
            if self.chance(50) {
                let new = self.of_shape(&shape);
                self.graph.output(name, new);
            }
        }
        // `of_shape` may have made leaves.
        self.evaluate();
    }

    /// Outputs the gradients of `y` with respect to all parameters, if they are tame.
    fn add_gradients(&mut self, y: Value) {
        let params: Vec<(String, Value)> = self
            .graph
            .leaves()
            .filter(|leaf| leaf.kind == viral_compiler::ir::LeafKind::Param)
            .map(|leaf| (leaf.name.to_owned(), leaf.value))
            .collect();
        let squares = self.graph.mul(y, y);
        let loss = self.graph.sum_all(squares);
        let loss = self.graph.scale(loss, 0.1);
        let wanted: Vec<Value> = params.iter().map(|&(_, value)| value).collect();
        let grads = gradients(&mut self.graph, loss, &wanted);
        self.evaluate();
        for ((name, _), gradient) in params.iter().zip(grads) {
            let Some(gradient) = gradient else { continue };
            let tame = self.results[gradient.index()].data.iter().all(|x| x.is_finite() && x.abs() < 1e4);
            if tame {
                self.graph.output(format!("d_{name}"), gradient);
            }
        }
    }
}
