//! `parts`: how many parts the long sums of an ordinary product with few results are cut into.

use viral_shaders::Target;

use super::product::Product;
use super::{Question, Seen, Tunable, unknown_choice};
use crate::compile::Options;
use crate::ir::{Graph, Node};
use crate::ops::Op;
use crate::passes::{Pass, parts as rule};

pub(super) struct Parts;

/// Parts that may be tried.
const TRIED: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Most results, in all parts together, for which more parts are tried: beyond, adding them up takes longer than it saves.
const MOST_RESULTS: usize = 1 << 22;

/// How many parts the sums of a product are cut into.
pub(crate) fn parts(graph: &Graph, node: &Node, options: &Options) -> usize {
    if !options.target.tuning.is_empty() && rule::can_be_cut(node) {
        let class = Product::of_node(graph, node, options).to_string();
        // As many as fit this product, of which the class has one.
        if let Some(most) = options.target.tuning.get(Parts.name(), &class).and_then(parse) {
            return rule::fitting(graph, node, most);
        }
    }
    rule::by_rule(graph, node, &options.target)
}

impl Tunable for Parts {
    fn name(&self) -> &'static str {
        "parts"
    }

    fn check(&self, class: &str, choice: &str, _target: &Target) -> Result<(), String> {
        Product::check_class(class)?;
        parse(choice).map(drop).ok_or_else(|| unknown_choice(choice, &TRIED.map(|parts| parts.to_string())))
    }

    fn questions(&self, seen: &Seen, options: &Options) -> Vec<Question> {
        let graph = seen.before(Pass::Parts);
        let nodes = seen.nodes_before(Pass::Parts);
        let products = nodes.filter(|node| matches!(node.op, Op::Dot(_)) && rule::can_be_cut(node));
        let question = |node: &Node| {
            let product = Product::of_node(graph, node, options);
            let by_rule = rule::by_rule(graph, node, &options.target);
            let [m, n, _] = product.extents;
            let fits = |parts: usize| rule::fitting(graph, node, parts) == parts && parts * m * n <= MOST_RESULTS;
            let others = TRIED.into_iter().filter(|&parts| parts != by_rule && (parts == 1 || fits(parts)));
            Question {
                tunable: self.name(),
                class: product.to_string(),
                rule: by_rule.to_string(),
                others: others.map(|parts| parts.to_string()).collect(),
                flops: product.flops(),
                graph: product.graph(),
                options: Options { cooperative: None, ..product.options(options) },
            }
        };
        products.map(question).collect()
    }
}

fn parse(choice: &str) -> Option<usize> {
    choice.parse().ok().filter(|parts| (1..=4096).contains(parts))
}
