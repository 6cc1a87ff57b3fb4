//! What every operation provides.

use std::fmt::Debug;
use std::hash::Hash;

use super::attr::Attr;
use crate::compile::Options;
use crate::grad::{Backward, gradients};
use crate::ir::{Graph, Value};
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

/// How an operation becomes device code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Stored by the outside.
    Leaf,
    /// Computed from the index alone; never stored.
    Index,
    /// Renames indices of its argument; costs nothing by itself.
    View,
    /// One element out of one element of each argument.
    Elementwise,
    /// Folds axes of its argument.
    Reduction,
    /// A hand-tuned kernel.
    Kernel,
    /// Stands for its expansion.
    Composite,
}

/// The rules of one operation. Fields, name and text attributes come from the `op!` declaration.
pub trait OpRule: Clone + Debug + Eq + Hash {
    /// Name in the text form.
    const NAME: &'static str;
    /// What it computes.
    const DOC: &'static str;

    /// Attributes in the text form.
    fn attrs(&self) -> Vec<(&'static str, String)>;

    /// The inverse of [`OpRule::attrs`].
    fn from_attrs(attrs: &[(&str, &str)]) -> Result<Self, String>;

    /// Type of the result, or a sentence that says what does not fit.
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String>;

    /// Reference evaluation. Composites are evaluated through their expansion and need none.
    fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
        crate::eval::through_expansion(args, ty, |graph, values| self.expand(graph, values))
    }

    /// Adds to the gradients of the arguments; does nothing where the derivative is zero everywhere.
    fn grad(&self, cx: &mut Backward<'_>);

    /// How the operation becomes device code.
    fn class(&self) -> Class;

    /// The definition of a composite in terms of simpler operations.
    fn expand(&self, _graph: &mut Graph, _args: &[Value]) -> Option<Value> {
        None
    }

    /// Positions of the arguments of which row `i` of the result, along its last axis, reads row `i` alone; it may read all of
    /// the others. `None` where a row of the result depends on several.
    fn by_rows(&self, args: &[&TensorType]) -> Option<Vec<usize>> {
        (self.class() == Class::Elementwise).then(|| (0..args.len()).collect())
    }

    /// Whether a hand-tuned kernel takes this composite with arguments of these types, on the device and with the activations that
    /// the options name; it is expanded otherwise.
    fn has_kernel(&self, _args: &[&TensorType], _options: &Options) -> bool {
        false
    }

    /// For a composite whose expansion is worth more than its kernel where there are cooperative matrices: the bytes of the
    /// largest tensor in it.
    fn on_matrices(&self, _args: &[&TensorType]) -> Option<u64> {
        None
    }

    /// What one launch of a hand-tuned kernel computes, named by one of its results: nodes with equal ones are *mates*,
    /// and computed together.
    fn launch(&self, _args: &[Value]) -> Option<(super::Op, Vec<Value>)> {
        None
    }

    /// WGSL expression of an elementwise operation. Expressions are scalars or `vec4`s; constants are written
    /// `F(1.0)`, with the alias `F` for the float type in use.
    fn wgsl(&self, _args: &[&str]) -> String {
        String::new()
    }

    /// Applications that the registry tests try. Shapes are small and odd.
    fn samples() -> Vec<Sample>;
}

/// How a test fills an argument.
#[derive(Clone, Copy, Debug)]
pub enum Gen {
    /// Reals in an interval.
    Uniform(f64, f64),
    /// Reals in -1..1 that the operation treats as constants.
    Fixed,
    /// Integers `0..n`.
    Index(usize),
    /// A permutation-like list without repeats, of integers `0..n`.
    Distinct(usize),
    /// Truth values.
    Bool,
}

/// An application of an operation to typed arguments.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The operation.
    pub op: super::Op,
    /// Type and content of each argument.
    pub args: Vec<(TensorType, Gen)>,
}

impl Sample {
    /// A sample without arguments yet.
    pub fn new(op: impl Into<super::Op>) -> Self {
        Self { op: op.into(), args: Vec::new() }
    }

    /// Adds an `f32` argument with entries in -1..1.
    pub fn f32(self, shape: &[usize]) -> Self {
        self.arg(DType::F32, shape, Gen::Uniform(-1.0, 1.0))
    }

    /// Adds an `f32` argument that the operation's gradient treats as a constant, such as a table.
    pub fn fixed(self, shape: &[usize]) -> Self {
        self.arg(DType::F32, shape, Gen::Fixed)
    }

    /// Arguments for the tests, the same for equal seeds.
    pub fn tensors(&self, random: &mut Random) -> Vec<Tensor> {
        self.args
            .iter()
            .map(|(ty, values)| {
                let mut unused: Vec<usize> = if let Gen::Distinct(n) = values { (0..*n).collect() } else { Vec::new() };
                let data = (0..ty.len()).map(|_| match *values {
                    Gen::Uniform(low, high) => low + (high - low) * random.real(),
                    Gen::Fixed => 2.0 * random.real() - 1.0,
                    Gen::Index(n) => random.below(n) as f64,
                    Gen::Distinct(_) => {
                        let at = random.below(unused.len());
                        unused.swap_remove(at) as f64
                    }
                    Gen::Bool => random.below(2) as f64,
                });
                // What the device stores, so that both sides compute from the same numbers.
                let tensor = Tensor { ty: ty.clone(), data: data.collect() };
                Tensor::from_bytes(ty, &tensor.to_bytes())
            })
            .collect()
    }

    /// The graph of the sample's value `y`, with the gradients `d0`, `d1`, … of its inner product with the leaf `w` where it
    /// is differentiable. Arguments are inputs named by position.
    pub fn value_and_gradients(&self) -> Graph {
        let mut graph = Graph::new();
        let input = |(i, (ty, _)): (usize, &(TensorType, Gen))| graph.input(i.to_string(), ty.dtype, &ty.shape);
        let args: Vec<Value> = self.args.iter().enumerate().map(input).collect();
        let y = graph.push(self.op.clone(), &args);
        graph.output("y", y);
        if graph.ty(y).dtype == DType::F32 {
            let shape = graph.shape(y).to_vec();
            let weight = graph.input("w", DType::F32, &shape);
            let product = graph.mul(y, weight);
            let loss = graph.sum_all(product);
            let real = self.differentiable();
            let wanted: Vec<Value> = real.iter().map(|&i| args[i]).collect();
            for (i, gradient) in real.iter().zip(gradients(&mut graph, loss, &wanted)) {
                if let Some(gradient) = gradient {
                    graph.output(format!("d{i}"), gradient);
                }
            }
        }
        graph
    }

    /// Positions of the arguments that have a gradient.
    pub fn differentiable(&self) -> Vec<usize> {
        let has_gradient = |i: &usize| self.args[*i].0.dtype == DType::F32 && !matches!(self.args[*i].1, Gen::Fixed);
        (0..self.args.len()).filter(has_gradient).collect()
    }

    /// Adds an argument.
    pub fn arg(mut self, dtype: DType, shape: &[usize], values: Gen) -> Self {
        self.args.push((TensorType::new(dtype, shape), values));
        self
    }
}

/// Numbers that look random and are the same everywhere, for tests and samples.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A real in [0, 1).
    pub fn real(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as f64) / (1u64 << 31) as f64
    }

    /// An integer below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.real() * n as f64) as usize
    }
}

/// Reads one named attribute.
pub(crate) fn read_attr<T: Attr>(attrs: &[(&str, &str)], name: &str) -> Result<T, String> {
    let found = attrs.iter().find(|(key, _)| *key == name);
    let (_, text) = found.ok_or_else(|| format!("attribute `{name}` is missing"))?;
    T::read(text).map_err(|e| format!("attribute `{name}`: {e}"))
}

/// Checks the number of arguments.
pub(crate) fn arity<'t, const N: usize>(args: &[&'t TensorType]) -> Result<[&'t TensorType; N], String> {
    args.try_into().map_err(|_| format!("takes {N} arguments, got {}", args.len()))
}

/// Type rule of elementwise operations: all arguments have one shape and the given element type.
pub(crate) fn same_shape(args: &[&TensorType], dtype: DType) -> Result<TensorType, String> {
    let first = args.first().ok_or("takes at least one argument")?;
    for arg in args {
        if arg.dtype != dtype {
            return Err(format!("element type must be {dtype}"));
        }
        if arg.shape != first.shape {
            return Err("shapes must be equal".into());
        }
    }
    Ok((*first).clone())
}

/// Type rule of arithmetic on two numbers of one type.
pub(crate) fn numeric_pair(args: &[&TensorType]) -> Result<TensorType, String> {
    let [a, _] = arity(args)?;
    if a.dtype == DType::Bool {
        return Err("takes numbers, not truth values".into());
    }
    same_shape(args, a.dtype)
}
