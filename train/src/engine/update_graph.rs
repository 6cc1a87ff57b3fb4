//! The graph of an optimiser step: the norm of all gradients, clipping, AdamW, and gradients back to zero.

use viral_compiler::ops::adamw::{AdamW, Part};
use viral_compiler::types::DType;
use viral_compiler::{Graph, Value};

use super::layout::{Flat, Layout};
use crate::config::TrainConfig;

/// Input of a group: decay factor, step size and inverse root of the second bias correction; see [`AdamW`].
pub(crate) fn hyper_name(group: usize) -> String {
    format!("hyper.{group}")
}

/// Input: largest norm of the gradients.
pub(crate) const MAX_NORM: &str = "max_grad_norm";
/// Output: L2 norms over all gradients before clipping, over all trained tensors and moments, and over the gradients of each
/// group. // (2 + groups)
pub(crate) const NORMS: &str = "norms";

/// A norm beyond which gradients count as not finite; also what stands for "no clipping".
pub(crate) const HUGE: f32 = 1e38;

/// Builds the graph over a layout's flat buffers.
///
/// A step whose gradients, tensors or moments are not finite changes nothing but the gradients, which become zero.
pub(crate) fn build(config: &TrainConfig, layout: &Layout) -> Graph {
    let mut g = Graph::new();
    let tensors: Vec<[Value; 4]> = layout
        .groups
        .iter()
        .enumerate()
        .map(|(index, group)| Flat::ALL.map(|flat| g.state(flat.buffer(index), &[group.len])))
        .collect();
    let grads: Vec<Value> = tensors.iter().map(|&[_, grad, ..]| grad).collect();
    let groups: Vec<Value> = grads.iter().map(|&grad| norm_of(&mut g, &[grad])).collect();
    let norm = root_of_squares(&mut g, &groups);
    let state: Vec<Value> = tensors.iter().flat_map(|&[param, _, first, second]| [param, first, second]).collect();
    let state = norm_of(&mut g, &state);
    let norms = g.concat(&[&[norm, state], &groups[..]].concat(), 0);
    g.set_name(norms, NORMS);
    g.output(NORMS, norms);

    // min(1, max_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ has it
    let max_norm = g.input(MAX_NORM, DType::F32, &[1]);
    let shifted = g.offset(norm, 1e-6);
    let ratio = g.div(max_norm, shifted);
    let one = g.constant(DType::F32, 1.0, &[1]);
    let is_large = g.less(ratio, one);
    let grad_scale = g.select(is_large, ratio, one);
    // Comparisons with NaN do not hold.
    let limit = g.constant(DType::F32, f64::from(HUGE), &[1]);
    let both = g.add(norm, state);
    let is_finite = g.less(both, limit);

    for (index, (group, [param, grad, first, second])) in layout.groups.iter().zip(tensors).enumerate() {
        g.scoped(format!("adamw.{index}"), |g| {
            let hyper = g.input(hyper_name(index), DType::F32, &[3]);
            let args = [param, grad, first, second, hyper, grad_scale];
            let keep = g.expand(is_finite, &[group.len]);
            for (part, flat, old) in [
                (Part::Param, Flat::Param, param),
                (Part::FirstMoment, Flat::FirstMoment, first),
                (Part::SecondMoment, Flat::SecondMoment, second),
            ] {
                let [beta1, beta2] = config.betas.map(Into::into);
                let new = g.push(AdamW { part, beta1, beta2, eps: config.eps.into() }, &args);
                let new = g.select(keep, new, old);
                g.output(flat.buffer(index), new);
            }
            let zero = g.constant(DType::F32, 0.0, &[group.len]);
            g.output(Flat::Grad.buffer(index), zero);
        });
    }
    g
}

/// L2 norm over several tensors. // (1)
fn norm_of(g: &mut Graph, tensors: &[Value]) -> Value {
    let norm = g.global_norm(tensors);
    g.reshape(norm, &[1])
}

/// The norm of the whole from the norms of its parts. // (1)
fn root_of_squares(g: &mut Graph, norms: &[Value]) -> Value {
    let squares: Vec<Value> = norms.iter().map(|&norm| g.mul(norm, norm)).collect();
    let sum = squares.into_iter().reduce(|sum, square| g.add(sum, square));
    let sum = sum.unwrap_or_else(|| g.constant(DType::F32, 0.0, &[1]));
    g.sqrt(sum)
}
