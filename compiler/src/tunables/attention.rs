//! `attention`: whether a fused kernel computes attention and its gradients, or products with the scores in memory.

use viral_shaders::Target;

use super::{Question, Seen, Tunable, extent_class, unknown_choice};
use crate::compile::Options;
use crate::ir::{Graph, Node};
use crate::ops::attention::Attention as Forward;
use crate::ops::attention_grad::{AttentionGrad, Operand};
use crate::ops::attention_lse::AttentionLse;
use crate::ops::attr::Real;
use crate::ops::{Class, Op};
use crate::passes::{Pass, composites as rule};
use crate::types::DType;

pub(super) struct Attention;

const FUSED: &str = "fused";
const PRODUCTS: &str = "products";

/// Whether a composite that could be computed by products is computed by its own kernel instead.
pub(crate) fn is_fused(graph: &Graph, node: &Node, options: &Options) -> bool {
    if !options.target.tuning.is_empty()
        && rule::could_be_products(graph, node, options)
        && let Some(problem) = Problem::of(graph, node, options)
    {
        match options.target.tuning.get(Attention.name(), &problem.class()) {
            Some(FUSED) => return true,
            Some(PRODUCTS) => return false,
            _ => {}
        }
    }
    rule::is_fused_by_rule(graph, node, options)
}

impl Tunable for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn check(&self, class: &str, choice: &str, _target: &Target) -> Result<(), String> {
        if !is_class(class) {
            return Err(format!("`{class}` is no class of attention"));
        }
        let known = [FUSED, PRODUCTS];
        if known.contains(&choice) { Ok(()) } else { Err(unknown_choice(choice, &known.map(str::to_owned))) }
    }

    fn questions(&self, seen: &Seen, options: &Options) -> Vec<Question> {
        let graph = seen.before(Pass::Composites);
        let nodes = seen.nodes_before(Pass::Composites);
        let nodes: Vec<&Node> = nodes.filter(|node| node.op.class() == Class::Composite).collect();
        let question = |node: &Node| {
            let problem = Problem::of(graph, node, options)?;
            let is_open = options.fused && rule::could_be_products(graph, node, options);
            // One of those that a launch computes together stands for all.
            let is_first =
                matches!(&node.op, Op::Attention(_) | Op::AttentionGrad(AttentionGrad { wrt: Operand::Query, .. }));
            if !is_open || !is_first {
                return None;
            }
            let lse = !problem.backward
                && nodes
                    .iter()
                    .any(|other| matches!(other.op, Op::AttentionLse(_)) && other.args[..2] == node.args[..2]);
            let fused = rule::is_fused_by_rule(graph, node, options);
            let [rule, other] = if fused { [FUSED, PRODUCTS] } else { [PRODUCTS, FUSED] };
            Some(Question {
                tunable: self.name(),
                class: problem.class(),
                rule: rule.to_owned(),
                others: vec![other.to_owned()],
                flops: problem.flops(),
                graph: problem.graph(lse),
                options: Options {
                    activations: options.activations,
                    cooperative: options.cooperative,
                    ..Options::new(options.target.clone())
                },
            })
        };
        nodes.iter().copied().filter_map(question).collect()
    }
}

/// Attention by all that its speed depends on.
struct Problem {
    backward: bool,
    causal: bool,
    /// Batch, queries, heads, width.
    q: [usize; 4],
    /// Batch, keys, heads, width.
    k: [usize; 4],
    /// What kernels keep in memory for one another, and whether products may be those of cooperative matrices.
    activations: DType,
    matrices: bool,
}

impl Problem {
    /// Of a node that is attention, its log-sum-exp or one of its gradients.
    fn of(graph: &Graph, node: &Node, options: &Options) -> Option<Self> {
        let (backward, causal) = match &node.op {
            Op::Attention(op) => (false, op.causal),
            Op::AttentionLse(op) => (false, op.causal),
            Op::AttentionGrad(op) => (true, op.causal),
            _ => return None,
        };
        let [q, k] = [0, 1].map(|i| graph.shape(node.args[i]).to_vec().try_into().ok());
        let matrices = options.cooperative.is_some() && options.target.cooperative_matrix.is_some();
        Some(Self { backward, causal, q: q?, k: k?, activations: options.activations, matrices })
    }

    fn class(&self) -> String {
        let ([batch, queries, heads, width], [_, keys, groups, _]) = (self.q, self.k);
        let direction = if self.backward { "backward" } else { "forward" };
        let causal = if self.causal { " causal" } else { "" };
        let [queries, keys, batch] = [queries, keys, batch].map(extent_class);
        let (activations, matrices) = (self.activations, if self.matrices { " matrices" } else { "" });
        format!("{direction} {batch}x{heads}/{groups} {queries}x{keys} width {width}{causal} {activations}{matrices}")
    }

    fn flops(&self) -> u64 {
        let ([batch, queries, heads, width], keys) = (self.q, self.k[1]);
        (if self.backward { 10 } else { 4 }) * (batch * heads * queries * keys * width) as u64
    }

    /// The problem alone; forwards also with the log-sum-exp, where the gradients want it.
    fn graph(&self, lse: bool) -> Graph {
        let mut graph = Graph::new();
        let [q, k, v] = [("q", &self.q), ("k", &self.k), ("v", &self.k)].map(|(name, shape)| graph.weight(name, shape));
        let (causal, scale) = (self.causal, Real::new((self.q[3] as f64).powf(-0.5)));
        if !self.backward {
            let out = graph.push(Forward { causal, scale }, &[q, k, v]);
            graph.output("out", out);
            if lse {
                let lse = graph.push(AttentionLse { causal, scale }, &[q, k]);
                graph.output("lse", lse);
            }
            return graph;
        }
        let [lse, delta] = ["lse", "delta"].map(|name| graph.weight(name, &self.q[..3]));
        let dy = graph.weight("dy", &self.q);
        for (name, wrt) in [("dq", Operand::Query), ("dk", Operand::Key), ("dv", Operand::Value)] {
            let gradient = graph.push(AttentionGrad { wrt, causal, scale }, &[q, k, v, lse, delta, dy]);
            graph.output(name, gradient);
        }
        graph
    }
}

/// Whether text has the form of a class.
fn is_class(text: &str) -> bool {
    let words: Vec<&str> = text.split(' ').collect();
    let numbers = |text: &str, count: usize| {
        let numbers: Vec<&str> = text.split(['x', '/']).collect();
        numbers.len() == count && numbers.iter().all(|number| number.parse::<usize>().is_ok())
    };
    let ["forward" | "backward", heads, lengths, "width", width, rest @ ..] = &words[..] else {
        return false;
    };
    let rest = rest.strip_prefix(&["causal"]).unwrap_or(rest);
    let rest = rest.strip_suffix(&["matrices"]).unwrap_or(rest);
    let is_type = |name: &str| DType::ALL.iter().any(|dtype| dtype.name() == name);
    numbers(heads, 3)
        && numbers(lengths, 2)
        && numbers(width, 1)
        && matches!(rest, [activations] if is_type(activations))
}
