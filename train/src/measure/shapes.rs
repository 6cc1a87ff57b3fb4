//! What is measured: one list of models and one of the kernels of a step. `viral-wgpu bench kernels`, `cargo bench` and,
//! through the former's JSON, the comparison with PyTorch all read them. A line here is a row there.

use serde::Serialize;
use viral_compiler::grad::gradients;
use viral_compiler::types::DType;
use viral_compiler::{Graph, Value};

/// The extents of a decoder and of a typical micro-batch of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Model {
    /// Name on the command line.
    pub name: &'static str,
    /// Samples.
    pub batch: usize,
    /// Tokens of a sample.
    pub tokens: usize,
    /// Width of the decoder.
    pub hidden: usize,
    /// Width of its feed-forward network.
    pub wide: usize,
    /// Query heads.
    pub heads: usize,
    /// Key heads.
    pub kv_heads: usize,
    /// Rank of the adapters.
    pub rank: usize,
    /// Rows of the head.
    pub vocabulary: usize,
    /// Rows with a target.
    pub targets: usize,
    /// Visual tokens that are aligned, and the teacher's width.
    pub aligned: [usize; 2],
}

/// Every model.
#[rustfmt::skip]
pub const MODELS: [Model; 5] = [
    Model { name: "small", batch: 4, tokens: 278, hidden: 512, wide: 1408, heads: 8, kv_heads: 8, rank: 16, vocabulary: 32_000, targets: 32, aligned: [1024, 256] },
    Model { name: "1b", batch: 1, tokens: 96, hidden: 2048, wide: 8192, heads: 16, kv_heads: 16, rank: 128, vocabulary: 32_064, targets: 16, aligned: [64, 256] },
    Model { name: "llava-1.5-7b", batch: 1, tokens: 1024, hidden: 4096, wide: 11_008, heads: 32, kv_heads: 32, rank: 128, vocabulary: 32_064, targets: 128, aligned: [576, 768] },
    Model { name: "llava-1.5-13b", batch: 1, tokens: 1024, hidden: 5120, wide: 13_824, heads: 40, kv_heads: 40, rank: 128, vocabulary: 32_064, targets: 128, aligned: [576, 768] },
    Model { name: "qwen2.5-7b", batch: 1, tokens: 1024, hidden: 3584, wide: 18_944, heads: 28, kv_heads: 4, rank: 128, vocabulary: 152_064, targets: 128, aligned: [576, 768] },
];

/// Name of the square products, which belong to no model.
pub const SQUARE: &str = "square";

/// What a kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Problem {
    /// `(m, k) · (k, n)`; a letter `t` of the form says that the left or right factor is stored transposed.
    Product {
        /// `nn`, `nt` or `tn`.
        form: &'static str,
        /// Rows of the result.
        m: usize,
        /// Columns of the result.
        n: usize,
        /// Length of the sums.
        k: usize,
    },
    /// Causal attention; with `backward`, the gradients of all three operands.
    Attention {
        /// Samples.
        batch: usize,
        /// Query heads.
        heads: usize,
        /// Key heads.
        kv_heads: usize,
        /// Tokens of a sample.
        tokens: usize,
        /// Width of a head.
        width: usize,
        /// Whether gradients are computed, too.
        backward: bool,
    },
    /// An operation on rows.
    Rows {
        /// Which.
        operation: RowOperation,
        /// Number of rows.
        rows: usize,
        /// Elements of a row.
        width: usize,
        /// Whether the gradient of the operand is computed, too.
        backward: bool,
    },
}

/// Operations whose time is that of moving memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowOperation {
    /// Sum of two tensors.
    Add,
    /// Gated activation of the feed-forward network.
    Swiglu,
    /// RMS normalisation.
    RmsNorm,
    /// Layer normalisation.
    LayerNorm,
    /// Cross-entropy of each row.
    CrossEntropy,
    /// Cosine of each row with the teacher's.
    CosineAlign,
}

/// A kernel in the shape that a model gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// The model.
    pub model: &'static str,
    /// What the model uses it for.
    pub name: &'static str,
    /// What is computed.
    #[serde(flatten)]
    pub problem: Problem,
}

/// Every case: squares, and the kernels of every model.
pub fn cases() -> Vec<Case> {
    let squares =
        [512, 1024].into_iter().flat_map(|s| ["nn", "nt", "tn"].map(|form| product("square", form, [s, s, s])));
    let squares = squares.map(|(name, problem)| Case { model: SQUARE, name, problem });
    squares.chain(MODELS.iter().flat_map(of_model)).collect()
}

/// The kernels of a step of one model.
fn of_model(model: &Model) -> impl Iterator<Item = Case> + use<> {
    use RowOperation::*;
    let Model { batch, tokens, hidden, wide, heads, kv_heads, rank, vocabulary, targets, aligned, .. } = *model;
    let rows = batch * tokens;
    let attention =
        |name, backward| (name, Problem::Attention { batch, heads, kv_heads, tokens, width: hidden / heads, backward });
    let by_row = |name, operation, rows, width, backward| (name, Problem::Rows { operation, rows, width, backward });
    let cases = [
        product("q_proj", "nt", [rows, hidden, hidden]),
        product("gate_proj", "nt", [rows, wide, hidden]),
        product("down_proj", "nt", [rows, hidden, wide]),
        product("gate_proj.grad", "nn", [rows, hidden, wide]),
        product("down_proj.grad", "nn", [rows, wide, hidden]),
        product("lora_A", "nt", [rows, rank, hidden]),
        product("lora_B", "nt", [rows, hidden, rank]),
        product("lora_A.grad", "tn", [rank, hidden, rows]),
        product("lora_B.grad", "tn", [hidden, rank, rows]),
        product("lm_head", "nt", [targets, vocabulary, hidden]),
        attention("attention", false),
        attention("attention.grad", true),
        by_row("add", Add, rows, hidden, false),
        by_row("rms_norm", RmsNorm, rows, hidden, false),
        by_row("rms_norm.grad", RmsNorm, rows, hidden, true),
        by_row("layer_norm", LayerNorm, rows, hidden, false),
        by_row("swiglu", Swiglu, rows, wide, false),
        by_row("swiglu.grad", Swiglu, rows, wide, true),
        by_row("cross_entropy.grad", CrossEntropy, targets, vocabulary, true),
        by_row("cosine_align.grad", CosineAlign, aligned[0], aligned[1], true),
    ];
    let model = model.name;
    cases.into_iter().map(move |(name, problem)| Case { model, name, problem })
}

fn product(name: &'static str, form: &'static str, [m, n, k]: [usize; 3]) -> (&'static str, Problem) {
    (name, Problem::Product { form, m, n, k })
}

impl Case {
    /// `model/name/shape`, by which a case is chosen.
    pub fn path(&self) -> String {
        format!("{}/{}/{}", self.model, self.name, self.problem.shape())
    }
}

impl Problem {
    /// The extents in short.
    pub fn shape(&self) -> String {
        match self {
            Self::Product { form, m, n, k } => format!("{form} {m}x{n}x{k}"),
            Self::Attention { batch, heads, kv_heads, tokens, width, .. } => {
                format!("{batch}x{heads}/{kv_heads}x{tokens}x{width}")
            }
            Self::Rows { rows, width, .. } => format!("{rows}x{width}"),
        }
    }

    /// Least floating-point operations: those that count where a kernel is compared with another one.
    pub fn flops(&self) -> u64 {
        match *self {
            Self::Product { m, n, k, .. } => 2 * (m * n * k) as u64,
            // Two products over the lower triangle; backward five more, of which one repeats the first.
            Self::Attention { batch, heads, tokens, width, backward, .. } => {
                let one = (batch * heads * tokens * tokens * width) as u64;
                if backward { one * 7 } else { one * 2 }
            }
            Self::Rows { .. } => 0,
        }
    }

    /// Least bytes read and written.
    pub fn bytes(&self) -> u64 {
        let floats = match *self {
            Self::Product { m, n, k, .. } => m * k + k * n + m * n,
            Self::Attention { batch, heads, kv_heads, tokens, width, backward } => {
                let (q, kv) = (batch * heads * tokens * width, batch * kv_heads * tokens * width);
                if backward { 4 * q + 4 * kv } else { 2 * q + 2 * kv }
            }
            Self::Rows { operation, rows, width, backward } => {
                let (read, written) = match operation {
                    RowOperation::Add => (2, 1),
                    RowOperation::Swiglu => (2, if backward { 2 } else { 1 }),
                    RowOperation::RmsNorm | RowOperation::LayerNorm => (1, if backward { 2 } else { 1 }),
                    RowOperation::CrossEntropy | RowOperation::CosineAlign => (1, usize::from(backward)),
                };
                let second = usize::from(operation == RowOperation::CosineAlign);
                (read + written + second) * rows * width
            }
        };
        4 * floats as u64
    }

    /// A graph that computes it, all of it from inputs.
    pub fn graph(&self) -> Graph {
        let mut g = Graph::new();
        match *self {
            Self::Product { form, m, n, k } => {
                let mut operand = |name: &str, [rows, columns]: [usize; 2], transposed: bool| {
                    let stored = if transposed { [columns, rows] } else { [rows, columns] };
                    let value = g.weight(name, &stored);
                    if transposed { g.transpose(value) } else { value }
                };
                let a = operand("a", [m, k], form.starts_with('t'));
                let b = operand("b", [k, n], form.ends_with('t'));
                let c = g.dot(a, b);
                g.output("c", c);
            }
            Self::Attention { batch, heads, kv_heads, tokens, width, backward } => {
                let q = leaf(&mut g, "q", &[batch, tokens, heads, width], backward);
                let [k, v] = ["k", "v"].map(|name| leaf(&mut g, name, &[batch, tokens, kv_heads, width], backward));
                let y = g.attention(q, k, v, true, (width as f64).powf(-0.5));
                let operands = [q, k, v];
                outputs(&mut g, y, if backward { &operands[..] } else { &[] });
            }
            Self::Rows { operation, rows, width, backward } => {
                let x = leaf(&mut g, "x", &[rows, width], backward);
                let y = operation.value(&mut g, x, [rows, width]);
                let operands = [x];
                outputs(&mut g, y, if backward { &operands[..] } else { &[] });
            }
        }
        g
    }
}

impl RowOperation {
    fn value(self, g: &mut Graph, x: Value, shape: [usize; 2]) -> Value {
        let [rows, width] = shape;
        match self {
            Self::Add => {
                let other = g.weight("other", &shape);
                g.add(x, other)
            }
            Self::Swiglu => {
                let up = g.weight("up", &shape);
                g.swiglu(x, up)
            }
            Self::RmsNorm => {
                let weight = g.weight("weight", &[width]);
                g.rms_norm(x, weight, 1e-5)
            }
            Self::LayerNorm => {
                let [weight, bias] = ["weight", "bias"].map(|name| g.weight(name, &[width]));
                g.layer_norm(x, weight, bias, 1e-5)
            }
            Self::CrossEntropy => {
                let targets = g.input("targets", DType::U32, &[rows]);
                g.cross_entropy(x, targets)
            }
            Self::CosineAlign => {
                let y = g.weight("y", &shape);
                g.cosine_align(x, y)
            }
        }
    }
}

fn leaf(g: &mut Graph, name: &str, shape: &[usize], differentiated: bool) -> Value {
    if differentiated { g.param(name, shape) } else { g.weight(name, shape) }
}

/// Makes `y` an output, or, where gradients are wanted, those of a weighted sum of it.
fn outputs(g: &mut Graph, y: Value, wanted: &[Value]) {
    if wanted.is_empty() {
        g.output("y", y);
        return;
    }
    let shape = g.shape(y).to_vec();
    let weights = g.weight("weights", &shape);
    let weighted = g.mul(y, weights);
    let loss = g.sum_all(weighted);
    for (index, gradient) in gradients(g, loss, wanted).into_iter().enumerate() {
        if let Some(gradient) = gradient {
            g.output(format!("gradient.{index}"), gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use viral_compiler::{Options, Target, compile};

    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own_and_compiles() {
        let cases = cases();
        let paths: BTreeSet<String> = cases.iter().map(Case::path).collect();
        assert_eq!(paths.len(), cases.len());
        // The largest do not fit what the baseline binds.
        for case in cases.iter().filter(|case| matches!(case.model, "square" | "small")) {
            let plan = compile(&case.problem.graph(), &Options::new(Target::baseline()));
            let plan = plan.unwrap_or_else(|error| panic!("{}: {error}", case.path()));
            assert!(plan.work().0 >= case.problem.flops() / 2, "{}", case.path());
        }
    }
}
