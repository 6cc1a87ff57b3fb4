//! Matrix products as problems with a class.

use std::collections::BTreeMap;
use std::fmt;

use viral_shaders::Storage;
use viral_shaders::gemm::{Form, Problem};

use super::extent_class;
use crate::compile::Options;
use crate::ir::{Graph, Node, Value};
use crate::lower::Tiled;
use crate::ops::{Class, Op};
use crate::types::DType;

/// A product by all that its speed depends on. Its text is that of its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Product {
    pub(super) form: Form,
    /// M, N, K.
    pub(super) extents: [usize; 3],
    /// Number of matrices.
    pub(super) batch: usize,
    /// Of both factors.
    pub(super) storage: [Storage; 2],
    /// Whether memory can be read four elements at a time.
    pub(super) vec4: bool,
}

impl Product {
    /// A product as its kernel sees it.
    pub(super) fn of_kernel(Tiled { spec, problem }: &Tiled) -> Self {
        let extents = [problem.m, problem.n, problem.k].map(|extent| extent as usize);
        let batch = problem.batches() as usize;
        Self { form: spec.form, extents, batch, storage: spec.storage, vec4: spec.vec4 }
    }

    /// A product of a graph that passes still rewrite: its factors lie as views of what is stored, as far as these tell.
    pub(super) fn of_node(graph: &Graph, node: &Node, options: &Options) -> Self {
        let (shape, rank) = (&node.ty.shape, node.ty.rank());
        let terms = graph.shape(node.args[0])[rank - 1];
        let [a, b] = [0, 1].map(|i| is_transposed(graph, node.args[i]));
        let storage = [0, 1].map(|i| stored_as(graph, node.args[i], options));
        let batch = shape[..rank - 2].iter().product();
        Self { vec4: false, form: Form::of(a, b), extents: [shape[rank - 2], shape[rank - 1], terms], batch, storage }
            .dense()
    }

    /// The same with factors that lie densely.
    fn dense(self) -> Self {
        let [m, n, k] = self.extents.map(|extent| extent as u32);
        Self { vec4: Problem::dense(self.form, [1, 1, self.batch as u32], m, n, k).vec4(self.form), ..self }
    }

    /// Whether it is as fast when its factors lie densely, which they do when it is measured.
    pub(super) fn is_like_dense(self) -> bool {
        self == self.dense()
    }

    pub(super) fn flops(&self) -> u64 {
        2 * (self.extents.iter().product::<usize>() * self.batch) as u64
    }

    /// The product alone, of weights.
    pub(super) fn graph(&self) -> Graph {
        let mut graph = Graph::new();
        let [m, n, k] = self.extents;
        let batch = if self.batch == 1 { vec![] } else { vec![self.batch] };
        let mut factor = |name: &str, transposed: bool, rows: usize, columns: usize| {
            let stored = if transposed { [columns, rows] } else { [rows, columns] };
            let value = graph.weight(name, &[&batch[..], &stored].concat());
            if transposed { graph.transpose(value) } else { value }
        };
        let a = factor("a", self.form.a_transposed(), m, k);
        let b = factor("b", self.form.b_transposed(), k, n);
        let c = graph.dot(a, b);
        graph.output("c", c);
        graph
    }

    /// Options for [`Product::graph`] that store its factors as the product's.
    pub(super) fn options(&self, options: &Options) -> Options {
        let stored = |name: &str, storage: Storage| (name.to_owned(), dtype_of(storage));
        let storage = BTreeMap::from([stored("a", self.storage[0]), stored("b", self.storage[1])]);
        Options {
            storage,
            activations: options.activations,
            cooperative: options.cooperative,
            ..Options::new(options.target.clone())
        }
    }

    /// Whether text names a class of products; if not, says so.
    pub(super) fn check_class(text: &str) -> Result<(), String> {
        match Self::parse(text) {
            Some(product) if product.to_string() == text => Ok(()),
            _ => Err(format!("`{text}` is no class of products")),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let form = words.next()?;
        let form = Form::ALL.into_iter().find(|known| known.name() == form)?;
        let extents: Vec<usize> = words.next()?.split('x').map(|extent| extent.parse().ok()).collect::<Option<_>>()?;
        let mut storage = || {
            let word = words.next()?;
            Storage::WEIGHTS.into_iter().find(|known| known.name() == word)
        };
        let storage = [storage()?, storage()?];
        let (mut batch, mut vec4) = (1, true);
        for word in words {
            match word.strip_prefix('x') {
                Some(matrices) => batch = matrices.parse().ok()?,
                None if word == UNALIGNED => vec4 = false,
                None => return None,
            }
        }
        // Sizes of no tensor are no reason to overflow.
        let fits = extents.iter().chain([&batch]).all(|extent| (1..=1 << 40).contains(extent));
        if fits { Some(Self { form, extents: extents.try_into().ok()?, batch, storage, vec4 }) } else { None }
    }
}

/// Ends the class of products that read one element at a time.
const UNALIGNED: &str = "unaligned";

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [m, n, k] = self.extents.map(extent_class);
        let [a, b] = self.storage.map(Storage::name);
        write!(f, "{} {m}x{n}x{k} {a} {b}", self.form.name())?;
        if self.batch > 1 {
            write!(f, " x{}", extent_class(self.batch))?;
        }
        if self.vec4 { Ok(()) } else { write!(f, " {UNALIGNED}") }
    }
}

fn dtype_of(storage: Storage) -> DType {
    DType::ALL.into_iter().find(|dtype| dtype.storage() == Some(storage)).unwrap_or(DType::F32)
}

/// Whether a factor is the transpose of what comes before it.
fn is_transposed(graph: &Graph, value: Value) -> bool {
    let Op::Permute(permute) = &graph.node(value).op else { return false };
    let rank = permute.order.len();
    rank >= 2 && permute.order[rank - 1] + 2 == rank
}

/// What the elements of a factor are stored as, or will be.
fn stored_as(graph: &Graph, mut value: Value, options: &Options) -> Storage {
    loop {
        let node = graph.node(value);
        match &node.op {
            Op::Widen(_) => return graph.ty(node.args[0]).dtype.storage().unwrap_or_default(),
            op if op.class() == Class::View => value = node.args[0],
            op if op.class() == Class::Leaf => return node.ty.dtype.storage().unwrap_or_default(),
            _ => return options.activations.storage().unwrap_or_default(),
        }
    }
}
