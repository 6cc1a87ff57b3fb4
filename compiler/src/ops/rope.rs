//! `rope{inverse}(x, cos, sin)`: rotary position embedding.

use viral_shaders::DeviceClass;

use super::rule::{Class, Sample, arity};
use crate::compile::Options;
use crate::grad::Backward;
use crate::ir::{Graph, Value};
use crate::types::{DType, TensorType};

op! {
    /// Rotates the pair `(x[e], x[e + E/2])` of every head by the angle of its position: `x (B, T, H, E)`, tables
    /// `cos, sin (T, E/2)`. Reference: J. Su et al., RoFormer, 2021, in the half-split convention of LLaMA.
    Rope = "rope" {
        /// Rotates backwards, which is also the transpose.
        inverse: bool,
    },

    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
        let [x, cos, sin] = arity(args)?;
        let fits = x.dtype == DType::F32 && x.rank() == 4 && x.shape[3] % 2 == 0 && cos.shape == [x.shape[1], x.shape[3] / 2] && sin == cos;
        if !fits {
            return Err("takes f32[B,T,H,E] with even E, and two f32[T,E/2]".into());
        }
        Ok(x.clone())
    }

    // A rotation is orthogonal: dx = dy rotated backwards
    fn grad(&self, cx: &mut Backward<'_>) {
        cx.give(0, |cx| {
            let (cos, sin) = (cx.args[1], cx.args[2]);
            cx.graph.push(Rope { inverse: !self.inverse }, &[cx.dy, cos, sin])
        });
    }

    fn class(&self) -> Class {
        Class::Composite
    }

    // Generated code reads and stores activations of 16 bits; the kernel knows f32 alone.
    fn has_kernel(&self, args: &[&TensorType], options: &Options) -> bool {
        options.target.class == DeviceClass::Cpu && !options.activations.is_storage() && args[0].shape[3].is_multiple_of(8)
    }

    // y1 = x1 · cos - x2 · sin,   y2 = x2 · cos + x1 · sin
    fn expand(&self, graph: &mut Graph, args: &[Value]) -> Option<Value> {
        let x = args[0];
        let shape = graph.shape(x).to_vec();
        let (positions, half) = (shape[1], shape[3] / 2);
        let table = |graph: &mut Graph, table: Value| graph.reshape(table, &[1, positions, 1, half]);
        let cos = table(graph, args[1]);
        let mut sin = table(graph, args[2]);
        if self.inverse {
            sin = graph.neg(sin);
        }
        let x1 = graph.slice(x, 3, 0, half);
        let x2 = graph.slice(x, 3, half, half);
        let (x1_cos, x2_sin) = (graph.mul(x1, cos), graph.mul(x2, sin));
        let (x2_cos, x1_sin) = (graph.mul(x2, cos), graph.mul(x1, sin));
        let y1 = graph.sub(x1_cos, x2_sin);
        let y2 = graph.add(x2_cos, x1_sin);
        Some(graph.concat(&[y1, y2], 3))
    }

    fn samples() -> Vec<Sample> {
        vec![
            Sample::new(Rope { inverse: false }).f32(&[2, 5, 3, 8]).fixed(&[5, 4]).fixed(&[5, 4]),
            Sample::new(Rope { inverse: true }).f32(&[3, 7, 2, 24]).fixed(&[7, 12]).fixed(&[7, 12]),
            Sample::new(Rope { inverse: true }).f32(&[1, 3, 2, 6]).fixed(&[3, 3]).fixed(&[3, 3]),
        ]
    }
}
