//! `matrices`: whether cooperative matrices compute a product, where rounding its operands is allowed, and in how many parts.

use viral_shaders::Target;
use viral_shaders::coop::Problem;

use super::product::Product;
use super::{Question, Seen, Tunable, unknown_choice};
use crate::compile::Options;
use crate::ir::{Graph, Node};
use crate::ops::Op;
use crate::passes::{Pass, matrices as rule};

pub(super) struct Matrices;

/// What computes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// An ordinary kernel.
    Ordinary,
    /// Cooperative matrices, in this many parts; 0 leaves them to the rule.
    Matrices {
        /// Of its sums.
        parts: u32,
    },
}

const ORDINARY: &str = "ordinary";
const MATRICES: &str = "matrices";
/// Between that and the number of parts.
const PARTS: &str = " in parts ";
/// Parts that may be tried.
const TRIED: [u32; 6] = [1, 2, 4, 8, 16, 32];
/// Fewest rows, columns and terms of a product for which matrices are tried.
const LEAST: usize = 16;

/// What computes a product, on a device that has cooperative matrices; those with at least `least` rows, columns and terms are
/// theirs by rule.
pub(crate) fn way(graph: &Graph, node: &Node, least: usize, options: &Options) -> Way {
    if !options.target.tuning.is_empty() {
        let class = Product::of_node(graph, node, options).to_string();
        if let Some(way) = options.target.tuning.get(Matrices.name(), &class).and_then(parse) {
            return way;
        }
    }
    by_rule(graph, node, least)
}

fn by_rule(graph: &Graph, node: &Node, least: usize) -> Way {
    if rule::is_large(graph, node, least) { Way::Matrices { parts: 0 } } else { Way::Ordinary }
}

impl Tunable for Matrices {
    fn name(&self) -> &'static str {
        "matrices"
    }

    // A device that was opened without its matrices, for a run in f32, has entries for runs that use them.
    fn check(&self, class: &str, choice: &str, _target: &Target) -> Result<(), String> {
        Product::check_class(class)?;
        parse(choice).map(drop).ok_or_else(|| unknown_choice(choice, &[ORDINARY, MATRICES].map(str::to_owned)))
    }

    fn questions(&self, seen: &Seen, options: &Options) -> Vec<Question> {
        let (Some(edge), Some(least)) = (options.target.cooperative_matrix, options.cooperative) else {
            return Vec::new();
        };
        let graph = seen.before(Pass::Matrices);
        let nodes = seen.nodes_before(Pass::Matrices);
        let products = nodes.filter(|node| matches!(node.op, Op::Dot(_)) && rule::is_large(graph, node, LEAST));
        let question = |node: &Node| {
            let product = Product::of_node(graph, node, options);
            let rule = by_rule(graph, node, least);
            let tiles = product.extents.map(|extent| extent.div_ceil(edge as usize) as u32);
            let usual = Problem::new(product.batch as u32, tiles).parts;
            let parts =
                TRIED.into_iter().filter(|&parts| product.batch == 1 && parts != usual && 16 * parts <= tiles[2]);
            let ways = [Way::Ordinary, Way::Matrices { parts: 0 }].into_iter();
            let ways = ways.chain(parts.map(|parts| Way::Matrices { parts }));
            Question {
                tunable: self.name(),
                class: product.to_string(),
                rule: text(rule),
                others: ways.filter(|way| *way != rule).map(text).collect(),
                flops: product.flops(),
                graph: product.graph(),
                options: product.options(options),
            }
        };
        products.map(question).collect()
    }
}

fn text(way: Way) -> String {
    match way {
        Way::Ordinary => ORDINARY.to_owned(),
        Way::Matrices { parts: 0 } => MATRICES.to_owned(),
        Way::Matrices { parts } => format!("{MATRICES}{PARTS}{parts}"),
    }
}

fn parse(choice: &str) -> Option<Way> {
    match choice.split_once(PARTS) {
        None if choice == ORDINARY => Some(Way::Ordinary),
        None if choice == MATRICES => Some(Way::Matrices { parts: 0 }),
        Some((MATRICES, parts)) => {
            Some(Way::Matrices { parts: parts.parse().ok().filter(|parts| (1..=4096).contains(parts))? })
        }
        _ => None,
    }
}
