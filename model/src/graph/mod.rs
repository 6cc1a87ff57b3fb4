//! The networks, as pure functions that add nodes to a graph.
//!
//! In the order in which a training step runs through them:
//!
//! * [`BatchShape`] and [`BatchInput`] say what the host writes before a step;
//! * [`vision`] turns pixels into features, [`projector::multi_modal`] those into visual tokens;
//! * [`llava`] puts visual and text tokens into one sequence and, at the far end, makes logits of the supervised
//!   positions; [`llama`] is the decoder in between, with [`Adapters`] on its linear maps;
//! * [`residual`] is what may be added to the decoder's states;
//! * [`teachers`] has the vision models that provide targets, [`pixels`] makes their input out of the tower's, and [`projector::Alignment`] maps the decoder's
//!   states to its width;
//! * [`vae`] makes the latents of a picture, [`denoiser`] predicts the noise that [`diffusion`] has added to them.
//!
//! Frozen and trained tensors have the checkpoint's canonical names; which are trained is one [`Trainable`] value.
//! [`LeafSource`] goes from the name of a leaf to its content, also where that is computed and not loaded.
//!
//! Loss terms are the caller's: nothing here knows an objective or an optimiser. All functions expect the shapes they
//! document; what does not fit is reported by `Graph::check`.

pub mod denoiser;
pub mod diffusion;
pub mod llama;
pub mod llava;
pub mod pixels;
pub mod projector;
pub mod residual;
pub mod teachers;
pub mod vae;
pub mod vision;

mod batch;
mod leaf;
mod lora;
mod noise;
mod source;
mod taps;
mod vit;

pub use batch::{BatchInput, BatchShape};
pub use leaf::{Trainable, adapter_key};
pub use lora::{Adapters, Dropout, LinearMap};
pub use noise::Noise;
pub use source::{Interpolation, LeafSource, Origin, RopePart, SourceError};

use viral_compiler::{Graph, Value};

use crate::config::Activation;

/// Prefix of the teacher's tensors, which keeps them apart from the model's own.
const TEACHER: &str = "teacher";
/// Prefix of the variational autoencoder's tensors.
const VAE: &str = "vae";

/// The activation function of a configuration file.
fn activation(g: &mut Graph, act: Activation, x: Value) -> Value {
    match act {
        Activation::Gelu => g.gelu(x),
        Activation::GeluTanh => g.gelu_tanh(x),
        Activation::QuickGelu => g.quick_gelu(x),
        Activation::Silu => g.silu(x),
    }
}

/// The first `N` extents of a value; 1 for those it lacks, whose absence the next operation's type rule reports.
fn extents<const N: usize>(g: &Graph, x: Value) -> [usize; N] {
    std::array::from_fn(|axis| g.shape(x).get(axis).copied().unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use viral_compiler::eval::evaluate_outputs;
    use viral_compiler::tensor::Tensor;
    use viral_compiler::types::{DType, TensorType};

    use super::*;

    /// PyTorch's values in f64 at -1, 0.5 and 2.
    #[test]
    fn activations_are_those_of_pytorch() {
        for (act, expected) in [
            (Activation::Gelu, [-0.158_655_253_9, 0.345_731_230_6, 1.954_499_736_1]),
            (Activation::GeluTanh, [-0.158_808_009_4, 0.345_714_009_8, 1.954_597_694_1]),
            (Activation::QuickGelu, [-0.154_204_234_1, 0.350_388_436_6, 1.935_658_623_1]),
            (Activation::Silu, [-0.268_941_421_4, 0.311_229_665_6, 1.761_594_156_0]),
        ] {
            let mut g = Graph::new();
            let x = g.input("x", DType::F32, &[3]);
            let y = activation(&mut g, act, x);
            g.output("y", y);
            let leaves = HashMap::from([("x".to_owned(), Tensor::new(TensorType::f32([3]), vec![-1.0, 0.5, 2.0]))]);
            for (found, expected) in evaluate_outputs(&g, &leaves).unwrap()["y"].data.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-7, "{act:?}: {found}, {expected}");
            }
        }
    }
}
