//! The reconstructive objective that VIRAL compares with: out of the visual tokens' states, a denoiser is to tell noise from
//! the latents of the picture. Reference: H. Wang et al., Reconstructive Visual Instruction Tuning (ROSS), 2024.

use viral_compiler::{Graph, Value};
use viral_model::config::VaeConfig;
use viral_model::graph::denoiser::Denoiser;
use viral_model::graph::{Noise, Trainable, diffusion, vae};

use crate::config::RossConfig;

/// What the objective sees; R pictures of N visual tokens each, C wide latents of a visual token.
#[derive(Clone, Debug)]
pub struct Reconstruction<'a> {
    /// The user's choices.
    pub config: &'a RossConfig,
    /// The autoencoder that the latents are of.
    pub vae: &'a VaeConfig,
    /// The decoder's states at visual tokens; zeros where a sample has no picture. // (R·N, D)
    pub states: Value,
    /// Mean and deviation of the latents. // (R·N, 2·C)
    pub posterior: Value,
    /// Weight of each picture. // (R)
    pub weights: Value,
    /// Where latents, noise and diffusion steps are drawn from.
    pub noise: Noise,
    /// Which tensors are trained.
    pub trainable: Trainable,
}

/// `sum_r w_r · mean (ε - f(x_t, t, h_r))²` over `ross.repeats` draws of step `t` and noise `ε`, tokens and channels,
/// where `x_t` are the latents of picture `r` after `t`; a scalar. Latents are drawn once for all repeats, and get no
/// gradient.
pub fn loss(g: &mut Graph, reconstruction: &Reconstruction<'_>) -> Value {
    let Reconstruction { config, vae, noise, .. } = *reconstruction;
    let (channels, repeats) = (vae.token_width(), config.repeats);
    let extent = |value| g.shape(value).first().copied().unwrap_or(1);
    let (rows, pictures) = (extent(reconstruction.posterior), extent(reconstruction.weights));
    let (tokens, samples) = (rows / pictures.max(1), pictures * repeats);

    let spread = noise.normal(g, "ross.latents", &[rows, channels]);
    let latents = vae::sample(g, vae, reconstruction.posterior, spread);
    let latents = g.stop_gradient(latents);
    let latents = g.reshape(latents, &[pictures, 1, tokens, channels]);
    let latents = g.expand(latents, &[pictures, repeats, tokens, channels]);
    let latents = g.reshape(latents, &[samples, tokens, channels]);
    let steps = diffusion::steps(g, noise, "ross.steps", samples);
    let added = noise.normal(g, "ross.noise", &[samples, tokens, channels]);
    let noisy = diffusion::add_noise(g, latents, added, steps);

    let denoiser = Denoiser { width: config.width, depth: config.depth, heads: config.heads };
    let found = denoiser.noise(g, reconstruction.trainable, noisy, steps, reconstruction.states);
    let difference = g.sub(added, found);
    let square = g.mul(difference, difference);
    let square = g.reshape(square, &[pictures, repeats * tokens * channels]);
    let means = g.mean_last(square);
    let means = g.reshape(means, &[pictures]);
    let weighted = g.mul(means, reconstruction.weights);
    g.sum_all(weighted)
}
