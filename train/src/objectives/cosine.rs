//! VIRAL's objective, equations 4 to 6: minus the mean cosine between projected states and targets.

use viral_compiler::{Graph, Value};

use super::Alignment;

/// `-sum_i w_i · cos(P(h_i), y_i)` over the visual tokens, for one target layer; no gradient reaches the targets.
pub(super) fn term(g: &mut Graph, alignment: &Alignment<'_>, position: usize) -> Value {
    g.scoped("cosine", |g| {
        let projected = alignment.projected(g, position);
        let targets = g.stop_gradient(alignment.targets);
        let cosine = g.cosine_align(projected, targets);
        let weighted = g.mul(cosine, alignment.weights);
        let sum = g.sum_all(weighted);
        g.neg(sum)
    })
}
