//! The arena, typed indices and hash-consing.

use std::collections::HashMap;
use std::fmt;

use crate::ops::Op;
use crate::types::TensorType;

/// Index of a node, and of its one result.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(u32);

impl Value {
    /// Position in the graph's topological order.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The value at this position.
    pub(crate) fn from_index(index: usize) -> Self {
        Self(index as u32)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// One operation applied to arguments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// From what.
    pub args: Vec<Value>,
    /// Type of the result.
    pub ty: TensorType,
}

/// Where a leaf's content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeafKind {
    /// Written by the caller before every replay.
    Input,
    /// A frozen tensor, written once.
    Weight,
    /// A tensor that gradients may be asked for.
    Param,
    /// A tensor that persists between replays and that an output may replace.
    State,
}

/// A leaf of the graph, as the outside knows it.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'g> {
    /// The node.
    pub value: Value,
    /// Unique name.
    pub name: &'g str,
    /// Where its content comes from.
    pub kind: LeafKind,
    /// Element type and shape.
    pub ty: &'g TensorType,
}

/// An operation was applied to arguments that it does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op}({args}){}: {message}", if .name.is_empty() { String::new() } else { format!(" at `{}`", .name) })]
pub struct TypeError {
    /// The operation's name.
    pub op: String,
    /// The argument types.
    pub args: String,
    /// The builder's scope.
    pub name: String,
    /// What does not fit.
    pub message: String,
}

/// A computation under construction or complete.
///
/// Builder methods (`graph.add(a, b)` and so on) return a value directly. The first type error is remembered and
/// reported by [`Graph::check`], so model code reads like formulas and mistakes still surface as errors.
#[derive(Clone, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    names: Vec<Option<String>>,
    interned: HashMap<(Op, Vec<Value>), Value>,
    outputs: Vec<(String, Value)>,
    scope: Vec<String>,
    error: Option<TypeError>,
    backward_from: Option<Value>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies `op` to `args`, or returns the equal node that exists already.
    pub fn push(&mut self, op: impl Into<Op>, args: &[Value]) -> Value {
        let op = op.into();
        if let Some(&known) = self.interned.get(&(op.clone(), args.to_vec())) {
            return known;
        }
        let arg_types: Vec<&TensorType> = args.iter().map(|&a| self.ty(a)).collect();
        let ty = match op.infer(&arg_types) {
            Ok(ty) => ty,
            Err(message) => {
                let args = arg_types.iter().map(|t| t.to_string()).collect::<Vec<_>>().join(", ");
                let error = TypeError { op: op.to_string(), args, name: self.scope.join("."), message };
                self.error.get_or_insert(error);
                // Any value will do: the graph is unusable from here on, and `check` says so.
                TensorType::f32([])
            }
        };
        let value = Value::from_index(self.nodes.len());
        self.nodes.push(Node { op: op.clone(), args: args.to_vec(), ty });
        self.names.push(if self.scope.is_empty() { None } else { Some(self.scope.join(".")) });
        self.interned.insert((op, args.to_vec()), value);
        value
    }

    /// The first type error made while building, if any.
    pub fn check(&self) -> Result<(), TypeError> {
        self.error.clone().map_or(Ok(()), Err)
    }

    /// The node behind a value.
    pub fn node(&self, value: Value) -> &Node {
        &self.nodes[value.index()]
    }

    /// The type of a value.
    pub fn ty(&self, value: Value) -> &TensorType {
        &self.nodes[value.index()].ty
    }

    /// The shape of a value.
    pub fn shape(&self, value: Value) -> &[usize] {
        &self.nodes[value.index()].ty.shape
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All values, arguments before users.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = Value> + use<> {
        (0..self.nodes.len()).map(Value::from_index)
    }

    /// The name a value was born under, from the builder's scopes.
    pub fn name(&self, value: Value) -> Option<&str> {
        self.names[value.index()].as_deref()
    }

    /// Names a value, replacing the name of its scope.
    pub fn set_name(&mut self, value: Value, name: impl Into<String>) {
        self.names[value.index()] = Some(name.into());
    }

    /// Runs `build` with `name` appended to the scope; nodes born inside carry the scope's path as their name.
    pub fn scoped<T>(&mut self, name: impl Into<String>, build: impl FnOnce(&mut Self) -> T) -> T {
        self.scope.push(name.into());
        let result = build(self);
        self.scope.pop();
        result
    }

    /// Runs `build` with the whole scope replaced: used where one graph is derived from another.
    pub(crate) fn named<T>(&mut self, name: Option<String>, build: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.scope, name.into_iter().collect());
        let result = build(self);
        self.scope = outer;
        result
    }

    /// The first value that differentiation added, if the graph has been differentiated.
    pub fn backward_from(&self) -> Option<Value> {
        self.backward_from
    }

    /// Notes that everything from here on belongs to a backward pass.
    pub(crate) fn begin_backward(&mut self) {
        let next = Value::from_index(self.nodes.len());
        self.backward_from.get_or_insert(next);
    }

    /// Declares a named result.
    pub fn output(&mut self, name: impl Into<String>, value: Value) {
        self.outputs.push((name.into(), value));
    }

    /// Removes all named results, for whoever wants others of the same graph.
    pub fn take_outputs(&mut self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.outputs)
    }

    /// Named results, in declaration order.
    pub fn outputs(&self) -> &[(String, Value)] {
        &self.outputs
    }

    /// All leaves that the outside fills, in order of birth.
    pub fn leaves(&self) -> impl Iterator<Item = Leaf<'_>> {
        self.values().filter_map(|value| match &self.node(value).op {
            Op::Input(op) => Some(Leaf { value, name: &op.name, kind: LeafKind::Input, ty: self.ty(value) }),
            Op::Weight(op) => Some(Leaf { value, name: &op.name, kind: LeafKind::Weight, ty: self.ty(value) }),
            Op::Param(op) => Some(Leaf { value, name: &op.name, kind: LeafKind::Param, ty: self.ty(value) }),
            Op::State(op) => Some(Leaf { value, name: &op.name, kind: LeafKind::State, ty: self.ty(value) }),
            _ => None,
        })
    }

    /// Which values are needed for the outputs.
    pub fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.len()];
        for &(_, value) in &self.outputs {
            live[value.index()] = true;
        }
        for value in self.values().rev() {
            if live[value.index()] {
                for arg in &self.node(value).args {
                    live[arg.index()] = true;
                }
            }
        }
        live
    }
}
