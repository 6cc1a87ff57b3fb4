//! `adamw{…}(p, g, m, v, step, grad_scale)`: one step of AdamW.

use super::attr::{Attr, Real};
use super::rule::{Class, Gen, Sample, arity};
use crate::grad::Backward;
use crate::ir::{Graph, Value};
use crate::types::{DType, TensorType};

/// Which of the three new tensors of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The parameters.
    Param,
    /// The running mean of the gradient.
    FirstMoment,
    /// The running mean of its square.
    SecondMoment,
}

impl Attr for Part {
    fn write(&self) -> String {
        match self {
            Part::Param => "p".into(),
            Part::FirstMoment => "m".into(),
            Part::SecondMoment => "v".into(),
        }
    }

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "p" => Ok(Part::Param),
            "m" => Ok(Part::FirstMoment),
            "v" => Ok(Part::SecondMoment),
            other => Err(format!("`{other}` is not p, m or v")),
        }
    }
}

op! {
    /// One of the three new tensors of a step of AdamW over flat tensors `p, g, m, v (n)`.
    /// `step (3)` holds what depends on the step: the decay factor `1 - lr·wd`, the step size `lr / (1 - β1^t)` and
    /// `1 / sqrt(1 - β2^t)`; `grad_scale (1)` multiplies the gradient (clipping).
    /// Reference: I. Loshchilov and F. Hutter, Decoupled Weight Decay Regularization, 2019.
    AdamW = "adamw" {
        /// Which new tensor.
        part: Part,
        /// Decay of the first moment.
        beta1: Real,
        /// Decay of the second moment.
        beta2: Real,
        /// Added to the denominator.
        eps: Real,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [p, g, m, v, step, grad_scale] = arity(args)?;
        if p.dtype != DType::F32 || p.rank() != 1 || [g, m, v].iter().any(|t| *t != p) {
            return Err("takes four equal f32[n]".into());
        }
        if *step != TensorType::f32([3]) || *grad_scale != TensorType::f32([1]) {
            return Err("takes step f32[3] and grad_scale f32[1]".into());
        }
        Ok(p.clone())
    }

    // Differentiated through the expansion; training never asks for it.
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.through_expansion(|graph, args| self.expand(graph, args));
    }

    fn class(&self) -> Class {
        Class::Composite
    }

    // g' = g · grad_scale,   m' = β1·m + (1-β1)·g',   v' = β2·v + (1-β2)·g'²
    // p' = p · decay - step_size · m' / (sqrt(v') · inv_sqrt_bias2 + eps)
    fn expand(&self, graph: &mut Graph, args: &[Value]) -> Option<Value> {
        let [p, g, m, v, step, grad_scale] = args.try_into().ok()?;
        let g = graph.mul(g, grad_scale);
        let average = |graph: &mut Graph, old: Value, new: Value, beta: f64| {
            let (old, new) = (graph.scale(old, beta), graph.scale(new, 1.0 - beta));
            graph.add(old, new)
        };
        let m = average(graph, m, g, self.beta1.get());
        let square = graph.mul(g, g);
        let v = average(graph, v, square, self.beta2.get());
        Some(match self.part {
            Part::FirstMoment => m,
            Part::SecondMoment => v,
            Part::Param => {
                let mut scalar = |at| graph.slice(step, 0, at, 1);
                let (decay, size, inv_sqrt_bias2) = (scalar(0), scalar(1), scalar(2));
                let root = graph.sqrt(v);
                let root = graph.mul(root, inv_sqrt_bias2);
                let denominator = graph.offset(root, self.eps.get());
                let direction = graph.div(m, denominator);
                let change = graph.mul(direction, size);
                let kept = graph.mul(p, decay);
                graph.sub(kept, change)
            }
        })
    }

    fn samples() -> Vec<Sample> {
        let positive = Gen::Uniform(0.1, 1.0);
        let step = |part| {
            Sample::new(AdamW { part, beta1: Real::new(0.9), beta2: Real::new(0.999), eps: Real::new(1e-8) })
                .f32(&[300])
                .f32(&[300])
                .f32(&[300])
                .arg(DType::F32, &[300], positive)
                .arg(DType::F32, &[3], positive)
                .arg(DType::F32, &[1], positive)
        };
        vec![step(Part::Param), step(Part::FirstMoment), step(Part::SecondMoment)]
    }
}
