//! The diffusion of the reconstructive objective: which step, how much noise, and what a step's number looks like to a
//! network. Reference: A. Nichol and P. Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021.

use viral_compiler::types::DType;
use viral_compiler::{Graph, Value};

use super::noise::Noise;
use super::source::LeafSource;

/// Steps of the diffusion.
pub const STEPS: usize = 1000;

/// A diffusion step for each of `samples`, each as likely as any other; `u32[samples]`.
pub fn steps(g: &mut Graph, noise: Noise, stream: &str, samples: usize) -> Value {
    let x = noise.uniform(g, stream, &[samples]);
    let x = g.scale(x, STEPS as f64);
    g.cast(x, DType::U32)
}

/// `sqrt(ᾱ_t) · clean + sqrt(1 - ᾱ_t) · noise`: what is left of `clean (S, …)` after step `t (S)`.
pub fn add_noise(g: &mut Graph, clean: Value, noise: Value, steps: Value) -> Value {
    let table = LeafSource::Diffusion { steps: STEPS }.leaf(g, &[STEPS, 2]);
    let factors = g.gather(table, steps, false); // (S, 2)
    let mut shape = vec![1; g.shape(clean).len()];
    shape[0] = g.shape(clean).first().copied().unwrap_or(1);
    let [kept, added] = [(0, clean), (1, noise)].map(|(column, x)| {
        let factor = g.slice(factors, 1, column, 1);
        let factor = g.reshape(factor, &shape);
        g.mul(factor, x)
    });
    g.add(kept, added)
}

/// Cosines and sines of the step's number at `width / 2` frequencies: `steps (S)`, result `(S, width)`.
pub(super) fn embedding(g: &mut Graph, steps: Value, width: usize) -> Value {
    let table = LeafSource::Timesteps { steps: STEPS, half: width / 2 }.leaf(g, &[STEPS, width]);
    g.gather(table, steps, false)
}

/// For each step `t` the pair `sqrt(ᾱ_t), sqrt(1 - ᾱ_t)`, row by row.
///
/// The cosine schedule: `β_t = min(1 - f((t+1)/T) / f(t/T), 0.999)` with `f(u) = cos²((u + 0.008) / 1.008 · π/2)`, and
/// `ᾱ_t` is the product of all `1 - β` up to `t`.
pub(super) fn schedule(steps: usize) -> Vec<f32> {
    let level = |step: usize| {
        let angle = (step as f64 / steps as f64 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2;
        angle.cos().powi(2)
    };
    let mut kept = 1.0;
    let rows = (0..steps).flat_map(|step| {
        kept *= 1.0 - (1.0 - level(step + 1) / level(step)).min(0.999);
        [kept.sqrt(), (1.0 - kept).sqrt()]
    });
    rows.map(|factor: f64| factor as f32).collect()
}

/// For each step `cos(t · f_k)` for all `k`, then `sin(t · f_k)`, with `f_k = 10000^(-k/half)`.
///
/// Frequencies and angles are rounded to `f32` where the reference rounds them, since the largest angle is a thousand.
pub(super) fn timesteps(steps: usize, half: usize) -> Vec<f32> {
    let frequency = |k: usize| {
        let exponent = -(10_000f64.ln() as f32) * k as f32 / half as f32;
        f64::from(exponent).exp() as f32
    };
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let row = |step: usize| {
        let angles: Vec<f64> = frequencies.iter().map(|f| f64::from(step as f32 * f)).collect();
        let [cosines, sines] =
            [f64::cos, f64::sin].map(|of: fn(f64) -> f64| angles.iter().map(|&a| of(a) as f32).collect());
        let row: [Vec<f32>; 2] = [cosines, sines];
        row.concat()
    };
    (0..steps).flat_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by the reference in f64.
    #[test]
    fn the_schedule_is_that_of_the_reference() {
        let table = schedule(STEPS);
        for (step, kept, added) in [
            (0, 0.999_979_357_67, 0.006_425_280_14),
            (1, 0.999_956_287_01, 0.009_350_084_10),
            (500, 0.701_630_367_39, 0.712_541_105_87),
            (998, 1.558_450_162e-3, 0.999_998_785_62),
            (999, 4.928_252_131e-5, 0.999_999_998_79),
        ] {
            for (found, expected) in [(table[2 * step], kept), (table[2 * step + 1], added)] {
                let error = (f64::from(found) - expected).abs() / expected;
                assert!(error < 1e-7, "step {step}: {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn a_step_looks_like_its_cosines_and_sines() {
        let table = timesteps(4, 2);
        let expected = [3f64.cos(), 0.03f64.cos(), 3f64.sin(), 0.03f64.sin()];
        assert!(table[12..].iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-7), "{table:?}");
        assert_eq!(table[..4], [1.0, 1.0, 0.0, 0.0]);
    }
}
