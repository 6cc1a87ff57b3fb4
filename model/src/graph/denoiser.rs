//! The denoiser of the reconstructive objective: a diffusion transformer that is told, token by token, what the decoder
//! knows of the picture. Reference: H. Wang et al., Reconstructive Visual Instruction Tuning (ROSS), 2024, in the form of
//! its `RossDenoiser`; W. Peebles and S. Xie, Scalable Diffusion Models with Transformers, 2023.

use viral_compiler::passes::BLOCK;
use viral_compiler::types::DType;
use viral_compiler::{Graph, Value};

use super::leaf::{Leaves, Trainable, width};
use super::vit::{AttentionNames, Block, BlockNames, Ffn, MLP};
use super::{diffusion, extents};
use crate::config::Activation;

/// Prefix of the tensors.
const NET: &str = "denoiser.net";
/// The tensor that [`positions`] makes, which is not trained.
pub(super) const POSITIONS: &str = "denoiser.net.pos_embed";

/// Added to the variance in the norm of the conditions.
const CONDITION_EPS: f64 = 1e-5;
/// Added to the variance in all other norms.
const EPS: f64 = 1e-6;
/// Width of a diffusion step's embedding.
const STEP_WIDTH: usize = 256;

/// Norms have no tensors; what they would learn comes with the condition.
const NAMES: BlockNames = BlockNames {
    norm1: "norm1",
    attention: AttentionNames::Fused("attn.qkv"),
    output: "attn.proj",
    norm2: "norm2",
    mlp: MLP,
    scales: None,
};

/// Shape of a denoiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denoiser {
    /// W, width of its residual stream; a multiple of 4 and of the heads.
    pub width: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
}

impl Denoiser {
    /// The noise that it sees in noisy latents `(S, N, C)` after diffusion steps `steps (S)`, as `(S, N, C)`.
    ///
    /// `conditions (R·N, D)` are the decoder's states at the N visual tokens, which lie on a square grid, of R pictures;
    /// sample `s` belongs to picture `s / (S/R)`.
    pub fn noise(self, g: &mut Graph, trainable: Trainable, noisy: Value, steps: Value, conditions: Value) -> Value {
        let leaves = Leaves::new(NET, trainable);
        let [_, tokens, channels] = extents(g, noisy);
        g.scoped("denoiser", |g| {
            let condition = self.condition(g, &leaves, steps, conditions, tokens); // (S, N, W)
            let patches = leaves.under("x_embedder.proj");
            let weight = patches.tensor(g, "weight", &[self.width, channels, 1, 1]);
            let weight = g.reshape(weight, &[self.width, channels]);
            let bias = patches.tensor(g, "bias", &[self.width]);
            let x = g.linear(noisy, weight, Some(bias));
            let table = leaves.tensor(g, "pos_embed", &[1, tokens, self.width]);
            let mut x = g.add(x, table);
            for index in 0..self.depth {
                let input = g.tag(x, BLOCK);
                let block = leaves.under(&format!("blocks.{index}"));
                x = g.scoped(format!("blocks.{index}"), |g| self.block(g, &block, input, condition));
            }
            let last = leaves.under("final_layer");
            let [shift, scale] = modulation(g, &last, condition);
            let x = modulated(g, x, shift, scale);
            last.linear(g, "linear", x, channels, true)
        })
    }

    /// What every block is told: `silu(step + picture)`, token by token, `(S, N, W)`.
    fn condition(self, g: &mut Graph, leaves: &Leaves, steps: Value, conditions: Value, tokens: usize) -> Value {
        let ([samples], [rows]) = (extents(g, steps), extents(g, conditions));
        let pictures = rows / tokens.max(1);
        let repeats = samples / pictures.max(1);
        let normed = plain_norm(g, conditions, CONDITION_EPS);
        let z = g.silu(normed);
        let z = leaves.linear(g, "z_embedder.1", z, self.width, true);
        let z = g.reshape(z, &[pictures, 1, tokens, self.width]);
        let t = diffusion::embedding(g, steps, STEP_WIDTH);
        let t = leaves.linear(g, "t_embedder.mlp.0", t, self.width, true);
        let t = g.silu(t);
        let t = leaves.linear(g, "t_embedder.mlp.2", t, self.width, true);
        let t = g.reshape(t, &[pictures, repeats, 1, self.width]);
        let sum = g.add(t, z); // (R, S/R, N, W)
        let sum = g.reshape(sum, &[samples, tokens, self.width]);
        let condition = g.silu(sum);
        // Every block reads it, so it is kept where blocks are computed again.
        g.tag(condition, BLOCK)
    }

    /// `x += gate · attention(norm(x))` and `x += gate · mlp(norm(x))`, norms and gates as the condition says.
    fn block(self, g: &mut Graph, leaves: &Leaves, x: Value, condition: Value) -> Value {
        let ffn = Ffn::Mlp { hidden: 4 * self.width, act: Activation::GeluTanh };
        let block = Block { heads: self.heads, eps: EPS, qkv_bias: true, ffn, names: &NAMES };
        let [shift1, scale1, gate1, shift2, scale2, gate2] = modulation(g, leaves, condition);
        let normed = modulated(g, x, shift1, scale1);
        let attended = block.attention(g, leaves, normed);
        let attended = g.mul(gate1, attended);
        let x = g.add(x, attended);
        let normed = modulated(g, x, shift2, scale2);
        let fed = block.feed_forward(g, leaves, normed);
        let fed = g.mul(gate2, fed);
        g.add(x, fed)
    }
}

/// Content of the table of positions of a square `grid`, `(1, grid², width)`: sines and cosines of the column in the
/// first half of a row, of the row in the second.
pub fn positions(grid: usize, width: usize) -> Vec<f32> {
    let quarter = width / 4;
    let frequency = |k: usize| 1.0 / 10_000f64.powf(k as f64 / quarter.max(1) as f64);
    let angles = |at: usize| (0..quarter).map(move |k| at as f64 * frequency(k));
    let encode = |at: usize| angles(at).map(f64::sin).chain(angles(at).map(f64::cos));
    let points = (0..grid).flat_map(|row| (0..grid).map(move |column| [column, row]));
    points.flat_map(|[column, row]| encode(column).chain(encode(row)).map(|x| x as f32)).collect()
}

/// What the condition `(S, N, W)` makes of a block's norms and gates, `P` values of `(S, N, W)`.
fn modulation<const P: usize>(g: &mut Graph, leaves: &Leaves, condition: Value) -> [Value; P] {
    let width = width(g, condition);
    let all = leaves.linear(g, "adaLN_modulation.1", condition, P * width, true);
    std::array::from_fn(|part| g.slice(all, 2, part * width, width))
}

/// `norm(x) · (1 + scale) + shift`
fn modulated(g: &mut Graph, x: Value, shift: Value, scale: Value) -> Value {
    let normed = plain_norm(g, x, EPS);
    let factor = g.offset(scale, 1.0);
    let scaled = g.mul(normed, factor);
    g.add(scaled, shift)
}

/// Layer normalisation without tensors.
fn plain_norm(g: &mut Graph, x: Value, eps: f64) -> Value {
    let shape = [width(g, x)];
    let [zero, one] = [0.0, 1.0].map(|value| g.constant(DType::F32, value, &shape));
    g.layer_norm(x, one, zero, eps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_encode_columns_before_rows() {
        let table = positions(3, 8);
        assert_eq!(table.len(), 9 * 8);
        // Point 5 is in row 1 and column 2; frequencies are 1 and 0.01.
        let expected = [
            2f64.sin(),
            0.02f64.sin(),
            2f64.cos(),
            0.02f64.cos(),
            1f64.sin(),
            0.01f64.sin(),
            1f64.cos(),
            0.01f64.cos(),
        ];
        assert!(
            table[40..48].iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-7),
            "{:?}",
            &table[40..48]
        );
    }
}
