//! Low-rank adapters on the decoder's linear maps.

use viral_compiler::types::DType;
use viral_compiler::{Graph, Value};

use super::leaf::{Leaves, width};
use super::noise::Noise;

/// A linear map of a decoder layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinearMap {
    /// Attention queries.
    Q,
    /// Attention keys.
    K,
    /// Attention values.
    V,
    /// Attention output.
    O,
    /// Gate of the MLP.
    Gate,
    /// Values of the MLP.
    Up,
    /// Output of the MLP.
    Down,
}

impl LinearMap {
    /// Every linear map, in the order of a forward pass.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// Name in checkpoints and configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The linear map of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|map| map.name() == name)
    }

    /// The module inside a layer that it belongs to.
    fn module(self) -> &'static str {
        match self {
            Self::Q | Self::K | Self::V | Self::O => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        }
    }
}

/// The low-rank adapters of a model. Reference: E. Hu et al., LoRA, 2021; the defaults of PEFT.
#[derive(Clone, Debug)]
pub struct Adapters {
    /// Rows of A, columns of B.
    pub rank: usize,
    /// The adapter's output is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Dropout on the adapter's input.
    pub dropout: Option<Dropout>,
    /// The maps that have an adapter, in every layer.
    pub targets: Vec<LinearMap>,
}

/// Random zeros in an adapter's input, different ones for each linear map and each micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Probability of a zero, in 0..1; what is left is divided by `1 - p`.
    pub p: f64,
    /// Where the zeros come from.
    pub noise: Noise,
}

/// A layer's linear map with its adapter, if it has one: `x (M, K)`, result `(M, outputs)`.
pub(super) fn linear(
    g: &mut Graph,
    layer: &Leaves,
    adapters: Option<&Adapters>,
    map: LinearMap,
    x: Value,
    outputs: usize,
    bias: bool,
) -> Value {
    g.scoped(map.name(), |g| {
        let Some(adapters) = adapters.filter(|a| a.targets.contains(&map)) else {
            return layer.under(map.module()).linear(g, map.name(), x, outputs, bias);
        };
        let leaves = layer.under(map.module()).under(map.name());
        let inputs = width(g, x);
        let w = leaves.tensor(g, "weight", &[outputs, inputs]);
        let a = leaves.tensor(g, "lora_A.weight", &[adapters.rank, inputs]);
        let b = leaves.tensor(g, "lora_B.weight", &[outputs, adapters.rank]);
        let x_adapter = match adapters.dropout {
            Some(dropout) => dropped(g, x, dropout, &leaves.name("lora_A")),
            None => x,
        };
        let y = g.lora_linear(x, x_adapter, w, a, b, adapters.alpha / adapters.rank as f64);
        if bias {
            let bias = leaves.tensor(g, "bias", &[outputs]);
            g.add(y, bias)
        } else {
            y
        }
    })
}

/// `x (M, K)` with each element zero with probability `p`, and divided by `1 - p` otherwise.
fn dropped(g: &mut Graph, x: Value, dropout: Dropout, stream: &str) -> Value {
    let shape = g.shape(x).to_vec();
    let uniform = dropout.noise.uniform(g, stream, &shape);
    let p = g.constant(DType::F32, dropout.p, &shape);
    let is_dropped = g.less(uniform, p);
    // A factor that is chosen, and not a choice between 0 and a product with a number: drivers may take the factors of
    // `(gate · up) · number` in another order where nothing else reads `gate · up`, as in a second computation, and then its
    // last bit would differ from the first one's.
    let [zero, kept] = [0.0, 1.0 / (1.0 - dropout.p)].map(|number| g.constant(DType::F32, number, &shape));
    let factor = g.select(is_dropped, zero, kept);
    g.mul(x, factor)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use viral_compiler::eval::evaluate_outputs;
    use viral_compiler::tensor::Tensor;
    use viral_compiler::types::TensorType;

    use super::*;

    #[test]
    fn dropout_keeps_the_mean_and_differs_by_linear_and_key() {
        const SIDE: usize = 100;
        let p = 0.3;
        let names = ["layers.0.self_attn.q_proj.lora_A", "layers.0.self_attn.k_proj.lora_A"];
        let masks = |key: f64| {
            let mut g = Graph::new();
            let key_leaf = g.input("key", DType::U32, &[]);
            let x = g.constant(DType::F32, 1.0, &[SIDE, SIDE]);
            for name in names {
                let y = dropped(&mut g, x, Dropout { p, noise: Noise { key: key_leaf } }, name);
                g.output(name, y);
            }
            g.verify().unwrap();
            let leaves = HashMap::from([("key".to_owned(), Tensor::new(TensorType::u32([]), vec![key]))]);
            let mut results = evaluate_outputs(&g, &leaves).unwrap();
            names.map(|name| results.remove(name).unwrap().data)
        };
        let all: Vec<Vec<f64>> = [masks(7.0), masks(8.0), masks(2_147_483_647.0)].concat();
        for (index, mask) in all.iter().enumerate() {
            assert!(mask.iter().all(|x| *x == 0.0 || (x - 1.0 / 0.7).abs() < 1e-12));
            let dropped = mask.iter().filter(|x| **x == 0.0).count() as f64 / mask.len() as f64;
            // Four standard deviations of the share of zeros.
            assert!((dropped - p).abs() < 4.0 * (p * (1.0 - p)).sqrt() / SIDE as f64, "{dropped}");
            for other in &all[..index] {
                let equal = mask.iter().zip(other).filter(|(a, b)| a == b).count() as f64 / mask.len() as f64;
                // Independent masks agree in p² + (1-p)² of their elements.
                assert!((equal - 0.58).abs() < 0.02, "{equal}");
            }
        }
    }
}
