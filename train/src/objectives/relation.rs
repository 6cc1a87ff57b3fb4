//! The relation objective: how similar the visual tokens of a picture are to each other, in the states and in the target.
//! VIRAL, appendix C; the release calls it `similarity`.

use viral_compiler::{Graph, Value};

use super::Alignment;

/// The mean over all pairs of visual tokens of a picture of `(cos(f_a, f_b) - cos(y_a, y_b))^2`, averaged over pictures
/// by their weights. `f` belongs to one target layer: `P(h)`, or `h` itself, which need not be as wide as `y`. No
/// gradient reaches the targets.
pub(super) fn term(g: &mut Graph, features: Value, alignment: &Alignment<'_>) -> Value {
    g.scoped("relation", |g| {
        let targets = g.stop_gradient(alignment.targets);
        let tokens = alignment.visual_tokens;
        let [found, wanted] = [features, targets].map(|x| self_similarity(g, x, tokens)); // (I, N, N)
        let difference = g.sub(found, wanted);
        let square = g.mul(difference, difference);
        let sums = g.sum(square, &[2]); // (I, N, 1)
        let images = g.shape(sums).first().copied().unwrap_or(1);
        // A picture's N weights are equal and add up to its share, so that this makes the mean over N of row means.
        let weights = g.reshape(alignment.weights, &[images, tokens, 1]);
        let weighted = g.mul(sums, weights);
        let sum = g.sum_all(weighted);
        g.scale(sum, 1.0 / tokens.max(1) as f64)
    })
}

/// Cosines between all visual tokens of each picture: `x (I·N, d)`, result `(I, N, N)`.
fn self_similarity(g: &mut Graph, x: Value, tokens: usize) -> Value {
    let unit = g.unit_rows(x);
    let shape = g.shape(unit).to_vec();
    let [rows, width] = [0, 1].map(|axis| shape.get(axis).copied().unwrap_or(1));
    let unit = g.reshape(unit, &[rows / tokens.max(1), tokens, width]);
    let turned = g.transpose(unit);
    g.dot(unit, turned)
}
