//! The vocabulary that model code is written in: one method per operation, plus the usual short forms.

use super::graph::{Graph, Value};
use crate::ops::{self, Real};
use crate::types::DType;

/// Methods for elementwise operations of one argument.
macro_rules! unary {
    ($($(#[$doc:meta])* $method:ident = $module:ident::$op:ident;)*) => {
        impl Graph {
            $($(#[$doc])* pub fn $method(&mut self, x: Value) -> Value { self.push(ops::$module::$op {}, &[x]) })*
        }
    };
}

/// Methods for elementwise operations of two arguments, which are broadcast against each other.
macro_rules! binary {
    ($($(#[$doc:meta])* $method:ident = $module:ident::$op:ident;)*) => {
        impl Graph {
            $($(#[$doc])* pub fn $method(&mut self, a: Value, b: Value) -> Value {
                let (a, b) = self.broadcast(a, b);
                self.push(ops::$module::$op {}, &[a, b])
            })*
        }
    };
}

unary! {
    /// `-x`
    neg = neg::Neg;
    /// `e^x`
    exp = exp::Exp;
    /// Natural logarithm.
    log = log::Log;
    /// Square root.
    sqrt = sqrt::Sqrt;
    /// `1 / x`
    recip = recip::Recip;
    /// Sine.
    sin = sin::Sin;
    /// Cosine.
    cos = cos::Cos;
    /// Error function.
    erf = erf::Erf;
    /// Hyperbolic tangent.
    tanh = tanh::Tanh;
    /// Logistic function.
    sigmoid = sigmoid::Sigmoid;
    /// The value as a constant to differentiation.
    stop_gradient = stop_gradient::StopGradient;
}

binary! {
    /// `a + b`, broadcast.
    add = add::Add;
    /// `a - b`, broadcast.
    sub = sub::Sub;
    /// `a · b` element by element, broadcast.
    mul = mul::Mul;
    /// `a / b`, broadcast.
    div = div::Div;
    /// The larger of two elements, broadcast.
    maximum = maximum::Maximum;
    /// `a < b`, broadcast.
    less = less::Less;
    /// `a == b`, broadcast.
    equal = equal::Equal;
}

/// Leaves.
impl Graph {
    /// A tensor that the caller writes before every replay.
    pub fn input(&mut self, name: impl Into<String>, dtype: DType, shape: &[usize]) -> Value {
        self.leaf(name.into(), |name| ops::input::Input { name, dtype, shape: shape.to_vec() })
    }

    /// A frozen tensor.
    pub fn weight(&mut self, name: impl Into<String>, shape: &[usize]) -> Value {
        self.leaf(name.into(), |name| ops::weight::Weight { name, dtype: DType::F32, shape: shape.to_vec() })
    }

    /// A tensor that gradients may be asked for.
    pub fn param(&mut self, name: impl Into<String>, shape: &[usize]) -> Value {
        self.leaf(name.into(), |name| ops::param::Param { name, dtype: DType::F32, shape: shape.to_vec() })
    }

    /// A tensor that persists between replays and that an output may replace.
    pub fn state(&mut self, name: impl Into<String>, shape: &[usize]) -> Value {
        self.leaf(name.into(), |name| ops::state::State { name, dtype: DType::F32, shape: shape.to_vec() })
    }

    /// As [`Graph::state`], kept in a storage type; [`Graph::widen`] reads it, and what is [narrowed](Graph::narrow) to the
    /// type may replace it.
    pub fn stored_state(&mut self, name: impl Into<String>, dtype: DType, shape: &[usize]) -> Value {
        self.leaf(name.into(), |name| ops::state::State { name, dtype, shape: shape.to_vec() })
    }

    fn leaf<T: Into<ops::Op>>(&mut self, name: String, op: impl FnOnce(String) -> T) -> Value {
        self.named(Some(name.clone()), |graph| graph.push(op(name), &[]))
    }

    /// One number in every element.
    pub fn constant(&mut self, dtype: DType, value: f64, shape: &[usize]) -> Value {
        self.push(ops::constant::Constant { value: Real::new(value), dtype, shape: shape.to_vec() }, &[])
    }

    /// Zeros of the type of `x`.
    pub fn zeros_like(&mut self, x: Value) -> Value {
        let ty = self.ty(x).clone();
        self.constant(ty.dtype, 0.0, &ty.shape)
    }

    /// The index along `axis`, as `u32`.
    pub fn iota(&mut self, shape: &[usize], axis: usize) -> Value {
        self.push(ops::iota::Iota { shape: shape.to_vec(), axis }, &[])
    }
}

/// Elementwise short forms.
impl Graph {
    /// `x · factor`
    pub fn scale(&mut self, x: Value, factor: f64) -> Value {
        let shape = self.shape(x).to_vec();
        let factor = self.constant(DType::F32, factor, &shape);
        self.mul(x, factor)
    }

    /// `x + offset`
    pub fn offset(&mut self, x: Value, offset: f64) -> Value {
        let shape = self.shape(x).to_vec();
        let offset = self.constant(DType::F32, offset, &shape);
        self.add(x, offset)
    }

    /// `1 - x`
    pub fn one_minus(&mut self, x: Value) -> Value {
        let shape = self.shape(x).to_vec();
        let one = self.constant(DType::F32, 1.0, &shape);
        self.sub(one, x)
    }

    /// `a` where the condition holds, else `b`; all of one shape.
    pub fn select(&mut self, condition: Value, a: Value, b: Value) -> Value {
        self.push(ops::select::Select {}, &[condition, a, b])
    }

    /// Change of element type.
    pub fn cast(&mut self, x: Value, to: DType) -> Value {
        if self.ty(x).dtype == to { x } else { self.push(ops::cast::Cast { to }, &[x]) }
    }

    /// What a tensor of a storage type holds, as `f32`.
    pub fn widen(&mut self, x: Value) -> Value {
        self.push(ops::widen::Widen {}, &[x])
    }

    /// The nearest numbers that a storage type without scales has, stored so.
    pub fn narrow(&mut self, x: Value, to: DType) -> Value {
        self.push(ops::narrow::Narrow { to }, &[x])
    }

    /// Uniform reals in [0, 1) from counters and keys of one shape.
    pub fn uniform(&mut self, counter: Value, key: Value) -> Value {
        let (counter, key) = self.broadcast(counter, key);
        self.push(ops::uniform::Uniform {}, &[counter, key])
    }

    /// `x · sigmoid(x)`
    pub fn silu(&mut self, x: Value) -> Value {
        let gate = self.sigmoid(x);
        self.mul(x, gate)
    }

    /// `0.5 x (1 + erf(x / sqrt 2))`
    pub fn gelu(&mut self, x: Value) -> Value {
        let scaled = self.scale(x, std::f64::consts::FRAC_1_SQRT_2);
        let erf = self.erf(scaled);
        let gate = self.offset(erf, 1.0);
        let half = self.scale(x, 0.5);
        self.mul(half, gate)
    }

    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x³)))`
    pub fn gelu_tanh(&mut self, x: Value) -> Value {
        let square = self.mul(x, x);
        let cubic = self.scale(square, 0.044715);
        let factor = self.offset(cubic, 1.0);
        let inner = self.mul(x, factor);
        let inner = self.scale(inner, (2.0 / std::f64::consts::PI).sqrt());
        let tanh = self.tanh(inner);
        let gate = self.offset(tanh, 1.0);
        let half = self.scale(x, 0.5);
        self.mul(half, gate)
    }

    /// `x · sigmoid(1.702 x)`
    pub fn quick_gelu(&mut self, x: Value) -> Value {
        let scaled = self.scale(x, 1.702);
        let gate = self.sigmoid(scaled);
        self.mul(x, gate)
    }
}

/// Reductions and views.
impl Graph {
    /// Sum over axes, which keep extent 1.
    pub fn sum(&mut self, x: Value, axes: &[usize]) -> Value {
        if axes.is_empty() { x } else { self.push(ops::sum::Sum { axes: axes.to_vec() }, &[x]) }
    }

    /// Sum of all elements, as a scalar.
    pub fn sum_all(&mut self, x: Value) -> Value {
        let count = self.ty(x).len();
        let flat = self.reshape(x, &[count]);
        let sum = self.sum(flat, &[0]);
        self.reshape(sum, &[])
    }

    /// Mean over the last axis, which keeps extent 1.
    pub fn mean_last(&mut self, x: Value) -> Value {
        let last = self.last_axis(x);
        let extent = self.shape(x).get(last).copied().unwrap_or(1);
        let sum = self.sum(x, &[last]);
        self.scale(sum, 1.0 / extent as f64)
    }

    /// Largest element along axes, which keep extent 1.
    pub fn reduce_max(&mut self, x: Value, axes: &[usize]) -> Value {
        self.push(ops::reduce_max::ReduceMax { axes: axes.to_vec() }, &[x])
    }

    /// The same elements in row-major order under another shape.
    pub fn reshape(&mut self, x: Value, shape: &[usize]) -> Value {
        if self.shape(x) == shape { x } else { self.push(ops::reshape::Reshape { shape: shape.to_vec() }, &[x]) }
    }

    /// Axis `i` of the result is axis `order[i]` of `x`.
    pub fn permute(&mut self, x: Value, order: &[usize]) -> Value {
        if order.iter().copied().eq(0..order.len()) {
            x
        } else {
            self.push(ops::permute::Permute { order: order.to_vec() }, &[x])
        }
    }

    /// Swaps the last two axes.
    pub fn transpose(&mut self, x: Value) -> Value {
        let rank = self.shape(x).len();
        let mut order: Vec<usize> = (0..rank).collect();
        if rank >= 2 {
            order.swap(rank - 1, rank - 2);
        }
        self.permute(x, &order)
    }

    /// Repeats axes of extent 1; leading axes are added where `shape` has more.
    pub fn expand(&mut self, x: Value, shape: &[usize]) -> Value {
        let mut from = self.shape(x).to_vec();
        while from.len() < shape.len() {
            from.insert(0, 1);
        }
        let x = self.reshape(x, &from);
        if from == shape { x } else { self.push(ops::expand::Expand { shape: shape.to_vec() }, &[x]) }
    }

    /// Indices `start..start + len` of one axis.
    pub fn slice(&mut self, x: Value, axis: usize, start: usize, len: usize) -> Value {
        if self.shape(x).get(axis) == Some(&len) { x } else { self.push(ops::slice::Slice { axis, start, len }, &[x]) }
    }

    /// Zeros before and after one axis.
    pub fn pad(&mut self, x: Value, axis: usize, before: usize, after: usize) -> Value {
        if before + after == 0 { x } else { self.push(ops::pad::Pad { axis, before, after }, &[x]) }
    }

    /// Joins tensors along an axis.
    pub fn concat(&mut self, parts: &[Value], axis: usize) -> Value {
        let extents: Vec<usize> = parts.iter().map(|&p| self.shape(p).get(axis).copied().unwrap_or(0)).collect();
        let total: usize = extents.iter().sum();
        let mut before = 0;
        let mut joined = None;
        for (&part, extent) in parts.iter().zip(extents) {
            let padded = self.pad(part, axis, before, total - before - extent);
            before += extent;
            joined = Some(joined.map_or(padded, |sum| self.add(sum, padded)));
        }
        joined.unwrap_or_else(|| self.constant(DType::F32, 0.0, &[0]))
    }

    /// Marks a value for a pass.
    pub fn tag(&mut self, x: Value, label: impl Into<String>) -> Value {
        self.push(ops::tag::Tag { label: label.into() }, &[x])
    }

    fn last_axis(&self, x: Value) -> usize {
        self.shape(x).len().saturating_sub(1)
    }

    /// Repeats both values to their common shape, by the usual rule: trailing axes are aligned, extent 1 repeats.
    fn broadcast(&mut self, a: Value, b: Value) -> (Value, Value) {
        let (sa, sb) = (self.shape(a), self.shape(b));
        if sa == sb {
            return (a, b);
        }
        let rank = sa.len().max(sb.len());
        let extent = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
        let common: Vec<usize> = (0..rank).map(|i| extent(sa, i).max(extent(sb, i))).collect();
        (self.expand(a, &common), self.expand(b, &common))
    }
}

/// Kernels and composites.
impl Graph {
    /// Matrix product over the last two axes.
    pub fn dot(&mut self, a: Value, b: Value) -> Value {
        self.push(ops::dot::Dot {}, &[a, b])
    }

    /// `x · wᵀ (+ bias)`: `x (…, K)`, `w (N, K)`, `bias (N)`, result `(…, N)`.
    pub fn linear(&mut self, x: Value, w: Value, bias: Option<Value>) -> Value {
        let (flat, mut shape) = self.flatten_rows(x);
        let wt = self.transpose(w);
        let mut y = self.dot(flat, wt);
        if let Some(bias) = bias {
            y = self.add(y, bias);
        }
        if let Some(last) = shape.last_mut() {
            *last = self.shape(w).first().copied().unwrap_or(1);
        }
        self.reshape(y, &shape)
    }

    /// `x (…, K)` as a matrix `(rows, K)`, and its original shape.
    pub fn flatten_rows(&mut self, x: Value) -> (Value, Vec<usize>) {
        let shape = self.shape(x).to_vec();
        let columns = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().product::<usize>() / columns.max(1);
        (self.reshape(x, &[rows, columns]), shape)
    }

    /// Rows of `table (R, D)` at `index (n)`; indices beyond the table give zeros.
    pub fn gather(&mut self, table: Value, index: Value, unique: bool) -> Value {
        self.push(ops::gather::Gather { unique }, &[table, index])
    }

    /// Rows of `x (n, D)` added into `rows` rows of zeros at `index (n)`.
    pub fn scatter(&mut self, x: Value, index: Value, rows: usize, unique: bool) -> Value {
        self.push(ops::scatter::Scatter { rows, unique }, &[x, index])
    }

    /// Root-mean-square normalisation over the last axis, times `weight`.
    pub fn rms_norm(&mut self, x: Value, weight: Value, eps: f64) -> Value {
        self.push(ops::rms_norm::RmsNorm { eps: Real::new(eps) }, &[x, weight])
    }

    /// Layer normalisation over the last axis, times `weight`, plus `bias`.
    pub fn layer_norm(&mut self, x: Value, weight: Value, bias: Value, eps: f64) -> Value {
        self.push(ops::layer_norm::LayerNorm { eps: Real::new(eps) }, &[x, weight, bias])
    }

    /// `silu(gate) · up`
    pub fn swiglu(&mut self, gate: Value, up: Value) -> Value {
        self.push(ops::swiglu::SwiGlu {}, &[gate, up])
    }

    /// Rotary embedding of `x (B, T, H, E)` with tables `cos, sin (T, E/2)`.
    pub fn rope(&mut self, x: Value, cos: Value, sin: Value) -> Value {
        self.push(ops::rope::Rope { inverse: false }, &[x, cos, sin])
    }

    /// `x·Wᵀ + scale · (x_adapter·Aᵀ)·Bᵀ`; see [`ops::lora_linear::LoraLinear`].
    pub fn lora_linear(&mut self, x: Value, x_adapter: Value, w: Value, a: Value, b: Value, scale: f64) -> Value {
        self.push(ops::lora_linear::LoraLinear { scale: Real::new(scale) }, &[x, x_adapter, w, a, b])
    }

    /// Scaled dot-product attention over `q (B, T, H, E)` and `k, v (B, S, G, E)`; see [`ops::attention::Attention`].
    pub fn attention(&mut self, q: Value, k: Value, v: Value, causal: bool, scale: f64) -> Value {
        self.push(ops::attention::Attention { causal, scale: Real::new(scale) }, &[q, k, v])
    }

    /// Negative log-likelihood of `targets (n)` under `logits (n, V)`, per row.
    pub fn cross_entropy(&mut self, logits: Value, targets: Value) -> Value {
        self.push(ops::cross_entropy::CrossEntropy {}, &[logits, targets])
    }

    /// Cosine of the angle between rows of `p (n, d)` and `y (n, d)`, per row.
    pub fn cosine_align(&mut self, p: Value, y: Value) -> Value {
        self.push(ops::cosine_align::CosineAlign {}, &[p, y])
    }

    /// Rows of `x (n, d)` scaled to norm 1; rows of zeros stay.
    pub fn unit_rows(&mut self, x: Value) -> Value {
        self.push(ops::unit_rows::UnitRows {}, &[x])
    }

    /// Euclidean norm over all elements of all arguments, as a scalar.
    pub fn global_norm(&mut self, tensors: &[Value]) -> Value {
        self.push(ops::global_norm::GlobalNorm {}, tensors)
    }
}
