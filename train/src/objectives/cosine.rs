//! VIRAL's objective, equations 4 to 6: minus the mean cosine between projected states and targets.

use viral_compiler::{Graph, Value};

use super::Alignment;

/// `-sum_i w_i · cos(f_i, y_i)` over the visual tokens, where `f = P(h)` `(I·N, d)` belongs to one target layer; no
/// gradient reaches the targets.
pub(super) fn term(g: &mut Graph, features: Value, alignment: &Alignment<'_>) -> Value {
    g.scoped("cosine", |g| {
        let targets = g.stop_gradient(alignment.targets);
        let cosine = g.cosine_align(features, targets);
        let weighted = g.mul(cosine, alignment.weights);
        let sum = g.sum_all(weighted);
        g.neg(sum)
    })
}
