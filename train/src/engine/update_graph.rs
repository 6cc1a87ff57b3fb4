//! The graph of an optimiser step: the norm of all gradients, clipping, AdamW, and gradients back to zero.

use viral_compiler::ops::adamw::{AdamW, Part};
use viral_compiler::types::DType;
use viral_compiler::{Graph, Value};

use super::layout::{BLOCK, Flat, Layout};
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

/// Builds the graph over a layout's flat buffers. Gradients are those of `loss_scale` times the loss.
///
/// A step whose gradients, tensors or moments are not finite changes nothing but the gradients, which become zero.
pub(crate) fn build(config: &TrainConfig, layout: &Layout, loss_scale: f32) -> Graph {
    let mut g = Graph::new();
    let tensors: Vec<[Value; 4]> = layout
        .groups
        .iter()
        .enumerate()
        .map(|(index, group)| {
            let flats = [Flat::Param, Flat::Grad, Flat::FirstMoment, Flat::SecondMoment];
            flats.map(|flat| state(&mut g, layout, flat, index, group.len))
        })
        .collect();
    let unscale = 1.0 / f64::from(loss_scale);
    let grads: Vec<Value> = tensors.iter().map(|&[_, grad, ..]| grad).collect();
    let groups: Vec<Value> = grads
        .iter()
        .map(|&grad| {
            let norm = norm_of(&mut g, &[grad]);
            g.scale(norm, unscale)
        })
        .collect();
    let norm = root_of_squares(&mut g, &groups);
    // Codes are always finite: of 8-bit moments the scales tell.
    let kept = [Flat::Param, Flat::FirstMoment, Flat::SecondMoment];
    let mut state = Vec::new();
    for (index, group) in layout.groups.iter().enumerate() {
        for flat in kept {
            let is_coded = flat.dtype(layout.moments).is_storage();
            state.push(match flat.scales().filter(|_| is_coded) {
                Some(scales) => g.state(scales.buffer(index), &[group.len / BLOCK, 1]),
                None => g.state(flat.buffer(index), &[group.len]),
            });
        }
    }
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
    let grad_scale = g.scale(grad_scale, unscale);
    // Comparisons with NaN do not hold.
    let limit = g.constant(DType::F32, f64::from(HUGE), &[1]);
    let both = g.add(norm, state);
    let is_finite = g.less(both, limit);
    let zero = g.constant(DType::F32, 0.0, &[1]);
    let is_finite = g.select(is_finite, one, zero);

    for (index, (group, [param, grad, first, second])) in layout.groups.iter().zip(tensors).enumerate() {
        g.scoped(format!("adamw.{index}"), |g| {
            // One small buffer instead of three: a kernel binds eight, and 8-bit moments take four.
            let hyper = g.input(hyper_name(index), DType::F32, &[3]);
            let controls = g.concat(&[hyper, grad_scale, is_finite], 0);
            let [hyper, grad_scale, is_finite] =
                [(0, 3), (3, 1), (4, 1)].map(|(start, len)| g.slice(controls, 0, start, len));
            let args = [param, grad, first, second, hyper, grad_scale];
            let is_finite = g.expand(is_finite, &[group.len]);
            let zero = g.constant(DType::F32, 0.0, &[group.len]);
            let keep = g.less(zero, is_finite);
            for (part, flat, old) in [
                (Part::Param, Flat::Param, param),
                (Part::FirstMoment, Flat::FirstMoment, first),
                (Part::SecondMoment, Flat::SecondMoment, second),
            ] {
                let [beta1, beta2] = config.betas.map(Into::into);
                let new = g.push(AdamW { part, beta1, beta2, eps: config.eps.into() }, &args);
                let new = g.select(keep, new, old);
                replace(g, layout, flat, index, new);
            }
            g.output(Flat::Grad.buffer(index), zero);
        });
    }
    g
}

/// What a buffer of a group holds, as numbers. // (len)
fn state(g: &mut Graph, layout: &Layout, flat: Flat, group: usize, len: usize) -> Value {
    let dtype = flat.dtype(layout.moments);
    let (Some(scales), true) = (flat.scales(), dtype.is_storage()) else {
        return g.state(flat.buffer(group), &[len]);
    };
    let codes = g.stored_state(flat.buffer(group), dtype, &[len / BLOCK, BLOCK]);
    let scales = g.state(scales.buffer(group), &[len / BLOCK, 1]);
    let codes = g.widen(codes);
    let values = g.mul(codes, scales);
    g.reshape(values, &[len])
}

/// Makes `new (len)` what the buffer holds. 8-bit moments are divided by the largest magnitude of their block, so the old
/// content, put back, is the same bits again: the largest is exactly 1.
fn replace(g: &mut Graph, layout: &Layout, flat: Flat, group: usize, new: Value) {
    let dtype = flat.dtype(layout.moments);
    let (Some(scales), true) = (flat.scales(), dtype.is_storage()) else {
        return g.output(flat.buffer(group), new);
    };
    let blocks = g.shape(new)[0] / BLOCK;
    let new = g.reshape(new, &[blocks, BLOCK]);
    let negative = g.neg(new);
    let magnitude = g.maximum(new, negative);
    let largest = g.reduce_max(magnitude, &[1]); // (blocks, 1)
    let (zero, one) = (g.zeros_like(largest), g.constant(DType::F32, 1.0, &[blocks, 1]));
    let is_positive = g.less(zero, largest);
    let divisor = g.select(is_positive, largest, one);
    let codes = g.div(new, divisor);
    let codes = g.narrow(codes, dtype);
    g.output(flat.buffer(group), codes);
    g.output(scales.buffer(group), largest);
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use viral_compiler::eval::evaluate_outputs;
    use viral_compiler::tensor::Tensor;
    use viral_compiler::types::TensorType;

    use super::*;
    use crate::config::Moments;

    /// The outputs of two updates of a tensor, from gradients of `loss_scale` times the loss.
    fn updated(moments: Moments, loss_scale: f32) -> HashMap<String, Tensor> {
        let params = vec![("alignment_projector.projector.0.weight".to_owned(), TensorType::f32([3, 200]))];
        let layout = Layout::new(params, 1 << 20, moments);
        let config = TrainConfig { moments, ..TrainConfig::default() };
        let graph = build(&config, &layout, loss_scale);
        graph.verify().unwrap();
        let mut leaves: HashMap<String, Tensor> = graph
            .leaves()
            .map(|leaf| {
                let value = |at: &[usize]| {
                    let i = at.iter().sum::<usize>() as f64;
                    match leaf.name {
                        name if name.starts_with("grads") => f64::from(loss_scale) * (0.3 * i).sin(),
                        name if name.starts_with("params") => (0.7 * i).cos(),
                        name if name.starts_with("hyper") => [1.0, 0.01, 30.0][at[0]],
                        MAX_NORM => 1.5,
                        _ => 0.0,
                    }
                };
                (leaf.name.to_owned(), Tensor::from_fn(leaf.ty, value))
            })
            .collect();
        let first = evaluate_outputs(&graph, &leaves).unwrap();
        let grads = leaves.iter().filter(|(name, _)| name.starts_with("grads")).map(|(n, t)| (n.clone(), t.clone()));
        let grads: HashMap<String, Tensor> = grads.collect();
        leaves.extend(first);
        leaves.extend(grads);
        evaluate_outputs(&graph, &leaves).unwrap()
    }

    #[test]
    fn a_scaled_loss_updates_to_the_same_numbers() {
        for moments in [Moments::F32, Moments::F8] {
            assert_eq!(updated(moments, 16384.0), updated(moments, 1.0), "{moments:?}");
        }
    }

    /// Moments with 3 bits of mantissa move a tensor nearly as exact ones do.
    #[test]
    fn eight_bit_moments_are_near_exact_ones() {
        let (exact, coded) = (updated(Moments::F32, 1.0), updated(Moments::F8, 1.0));
        let before = (0..600).map(|i| (0.7 * f64::from(i)).cos());
        let moves = |tensors: &HashMap<String, Tensor>| -> Vec<f64> {
            tensors["params.0"].data.iter().zip(before.clone()).map(|(after, before)| after - before).collect()
        };
        let (exact, coded) = (moves(&exact), moves(&coded));
        let distance: f64 = exact.iter().zip(&coded).map(|(a, b)| (a - b).powi(2)).sum();
        let norm: f64 = exact.iter().map(|a| a * a).sum();
        assert!(norm > 0.0 && (distance / norm).sqrt() < 0.05, "{}", (distance / norm).sqrt());
    }
}
