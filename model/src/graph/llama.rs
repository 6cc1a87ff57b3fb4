//! The decoder: LLaMA, and Qwen2 with its biases. Reference: H. Touvron et al., 2023, in the form of the library's
//! `LlamaModel`.

use viral_compiler::{Graph, Value};

use super::leaf::{Leaves, Trainable};
use super::lora::{Adapters, LinearMap};
use super::residual::Residual;
use super::source::{LeafSource, RopePart};
use super::{extents, lora};
use crate::config::TextConfig;

/// Label of the tag on each layer's input, between which a pass may recompute.
pub use viral_compiler::passes::BLOCK;

/// All `L + 1` states `(B, T, D)` of the decoder on embeddings `h0 (B, T, D)`; of the last one only the last `tail` positions,
/// `(B, tail, D)`.
///
/// Entry 0 is `h0`, entry `k < L` the residual stream after layer `k` (counted from 1), and entry `L` the stream after the
/// last layer **and the final norm**: the index convention of VIRAL's target layers. A residual is part of the stream
/// behind its layers, so of entry `k` too. Attention is causal and positions count
/// from 0 in every row, so rows are padded on the right.
pub fn hidden_states(
    g: &mut Graph,
    config: &TextConfig,
    adapters: Option<&Adapters>,
    residual: Option<&Residual>,
    trainable: Trainable,
    h0: Value,
    tail: usize,
) -> Vec<Value> {
    let leaves = Leaves::new("model.language_model", trainable);
    let [batch, tokens] = extents(g, h0);
    let layers = Decoder { config, adapters, batch, tokens };
    let mut states = Vec::with_capacity(config.layers + 1);
    let mut h = h0;
    for index in 0..config.layers {
        h = g.scoped(format!("layers.{index}"), |g| {
            let input = g.tag(h, BLOCK);
            states.push(input);
            let queries = if index + 1 == config.layers { tail } else { tokens };
            layers.layer(g, &leaves.under(&format!("layers.{index}")), input, queries)
        });
        if let Some(residual) = residual.filter(|residual| residual.layers.contains(&(index + 1))) {
            h = g.scoped("residual", |g| {
                let [_, positions] = extents(g, h);
                let value = self::tail(g, residual.value, 1, positions);
                g.add(h, value)
            });
        }
    }
    states.push(g.scoped("norm", |g| leaves.rms_norm(g, "norm", h, config.rms_norm_eps)));
    states
}

/// The last `positions` along an axis.
pub fn tail(g: &mut Graph, x: Value, axis: usize, positions: usize) -> Value {
    let all = g.shape(x).get(axis).copied().unwrap_or(positions);
    g.slice(x, axis, all.saturating_sub(positions), positions)
}

/// What all layers have in common.
struct Decoder<'c> {
    config: &'c TextConfig,
    adapters: Option<&'c Adapters>,
    batch: usize,
    tokens: usize,
}

impl Decoder<'_> {
    /// `h (B, T, D)` after `h += attention(norm(h))` and `h += mlp(norm(h))`, for the last positions. // (B, queries, D)
    fn layer(&self, g: &mut Graph, leaves: &Leaves, h: Value, queries: usize) -> Value {
        let eps = self.config.rms_norm_eps;
        let normed = g.scoped("input_layernorm", |g| leaves.rms_norm(g, "input_layernorm", h, eps));
        let attended = self.attention(g, leaves, normed, queries);
        let h = tail(g, h, 1, queries);
        let h = g.add(h, attended);
        let normed = g.scoped("post_attention_layernorm", |g| leaves.rms_norm(g, "post_attention_layernorm", h, eps));
        let fed = self.mlp(g, leaves, normed);
        g.add(h, fed)
    }

    /// Causal attention with rotary positions over `x (B, T, D)`, of its last positions. // (B, queries, D)
    fn attention(&self, g: &mut Graph, leaves: &Leaves, x: Value, queries: usize) -> Value {
        let c = self.config;
        let asking = tail(g, x, 1, queries);
        let shape = g.shape(asking).to_vec();
        let [(x, _), (asking, _)] = [x, asking].map(|x| g.flatten_rows(x)); // (B·T, D), (B·queries, D)
        let tables = [RopePart::Cos, RopePart::Sin].map(|part| self.rope_table(g, part)); // (T, E/2)
        let q = self.linear(g, leaves, LinearMap::Q, asking, c.query_width(), c.qkv_bias);
        let k = self.linear(g, leaves, LinearMap::K, x, c.kv_width(), c.qkv_bias);
        let v = self.linear(g, leaves, LinearMap::V, x, c.kv_width(), c.qkv_bias);
        let y = g.scoped("self_attn", |g| {
            let [q, k, v] = [(q, queries, c.heads), (k, self.tokens, c.kv_heads), (v, self.tokens, c.kv_heads)]
                .map(|(x, positions, heads)| g.reshape(x, &[self.batch, positions, heads, c.head_dim]));
            let [q, k] = [(q, queries), (k, self.tokens)].map(|(x, positions)| {
                let [cos, sin] = tables.map(|table| tail(g, table, 0, positions));
                g.rope(x, cos, sin)
            });
            let y = g.attention(q, k, v, true, (c.head_dim as f64).powf(-0.5)); // (B, queries, H, E)
            g.reshape(y, &[self.batch * queries, c.query_width()])
        });
        let y = self.linear(g, leaves, LinearMap::O, y, c.hidden_size, c.output_bias);
        g.reshape(y, &shape)
    }

    /// `down(silu(gate(x)) · up(x))` of `x (B, T, D)`.
    fn mlp(&self, g: &mut Graph, leaves: &Leaves, x: Value) -> Value {
        let c = self.config;
        let shape = g.shape(x).to_vec();
        let (x, _) = g.flatten_rows(x); // (B·T, D)
        let gate = self.linear(g, leaves, LinearMap::Gate, x, c.intermediate_size, false);
        let up = self.linear(g, leaves, LinearMap::Up, x, c.intermediate_size, false);
        let y = g.scoped("mlp", |g| g.swiglu(gate, up));
        let y = self.linear(g, leaves, LinearMap::Down, y, c.hidden_size, false);
        g.reshape(y, &shape)
    }

    fn linear(&self, g: &mut Graph, layer: &Leaves, map: LinearMap, x: Value, outputs: usize, bias: bool) -> Value {
        lora::linear(g, layer, self.adapters, map, x, outputs, bias)
    }

    /// Cosines or sines of all positions, `(T, E/2)`; one leaf for all layers.
    fn rope_table(&self, g: &mut Graph, part: RopePart) -> Value {
        let half = self.config.head_dim / 2;
        LeafSource::Rope { part, positions: self.tokens, half, theta: self.config.rope_theta }
            .leaf(g, &[self.tokens, half])
    }
}
