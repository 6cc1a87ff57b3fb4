//! The operations, one file each.
//!
//! An operation's file holds everything there is to know about it: its fields, type rule, reference evaluation in f64,
//! gradient, lowering, documentation and sample inputs. The list at the end of this page is the registry: one line makes
//! an operation exist for the builder, the text form, the interpreter, autodiff, code generation and the tests.

pub(crate) mod attr;
pub(crate) mod rule;

pub use attr::{Attr, Real};
pub use rule::{Class, Gen, OpRule, Random, Sample};

use crate::compile::Options;
use crate::grad::Backward;
use crate::ir::{Graph, Value};
use crate::tensor::Tensor;
use crate::types::TensorType;

/// Declares the enum of all operations and forwards [`OpRule`] to the variant.
macro_rules! registry {
    ($($group:literal: { $($module:ident::$variant:ident),* $(,)? })*) => {
        $($(pub mod $module;)*)*

        /// Any operation.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Op {
            $($(
                #[doc = concat!("See [`", stringify!($module), "::", stringify!($variant), "`].")]
                $variant($module::$variant),
            )*)*
        }

        $($(
            impl From<$module::$variant> for Op {
                fn from(op: $module::$variant) -> Self {
                    Op::$variant(op)
                }
            }
        )*)*

        impl Op {
            /// Name in the text form.
            pub fn name(&self) -> &'static str {
                match self { $($(Op::$variant(_) => <$module::$variant as OpRule>::NAME,)*)* }
            }

            /// Type of the result, or what does not fit.
            pub fn infer(&self, args: &[&TensorType]) -> Result<TensorType, String> {
                match self { $($(Op::$variant(op) => op.infer(args),)*)* }
            }

            /// Reference evaluation in f64.
            pub fn eval(&self, args: &[&Tensor], ty: &TensorType) -> Tensor {
                match self { $($(Op::$variant(op) => op.eval(args, ty),)*)* }
            }

            /// Adds to the gradients of the arguments.
            pub fn grad(&self, cx: &mut Backward<'_>) {
                match self { $($(Op::$variant(op) => op.grad(cx),)*)* }
            }

            /// How the operation becomes device code.
            pub fn class(&self) -> Class {
                match self { $($(Op::$variant(op) => op.class(),)*)* }
            }

            /// The definition of a composite in terms of simpler operations.
            pub fn expand(&self, graph: &mut Graph, args: &[Value]) -> Option<Value> {
                match self { $($(Op::$variant(op) => op.expand(graph, args),)*)* }
            }

            /// See [`OpRule::by_rows`].
            pub fn by_rows(&self, args: &[&TensorType]) -> Option<Vec<usize>> {
                match self { $($(Op::$variant(op) => op.by_rows(args),)*)* }
            }

            /// See [`OpRule::has_kernel`].
            pub fn has_kernel(&self, args: &[&TensorType], options: &Options) -> bool {
                match self { $($(Op::$variant(op) => op.has_kernel(args, options),)*)* }
            }

            /// See [`OpRule::on_matrices`].
            pub fn on_matrices(&self, args: &[&TensorType]) -> Option<u64> {
                match self { $($(Op::$variant(op) => op.on_matrices(args),)*)* }
            }

            /// What one launch of a hand-tuned kernel computes; nodes with equal ones are computed together.
            pub fn launch(&self, args: &[Value]) -> Option<(Op, Vec<Value>)> {
                match self { $($(Op::$variant(op) => op.launch(args),)*)* }
            }

            /// WGSL expression of an elementwise operation.
            pub fn wgsl(&self, args: &[&str]) -> String {
                match self { $($(Op::$variant(op) => op.wgsl(args),)*)* }
            }

            /// Attributes in the text form.
            pub fn attrs(&self) -> Vec<(&'static str, String)> {
                match self { $($(Op::$variant(op) => op.attrs(),)*)* }
            }

            /// The inverse of [`Op::name`] and [`Op::attrs`].
            pub fn parse(name: &str, attrs: &[(&str, &str)]) -> Result<Op, String> {
                $($(
                    if name == <$module::$variant as OpRule>::NAME {
                        return <$module::$variant as OpRule>::from_attrs(attrs).map(Op::$variant);
                    }
                )*)*
                Err(format!("there is no operation `{name}`"))
            }

            /// Documentation of every operation: group, name, text.
            pub fn docs() -> Vec<(&'static str, &'static str, &'static str)> {
                vec![$($(($group, <$module::$variant as OpRule>::NAME, <$module::$variant as OpRule>::DOC),)*)*]
            }

            /// Sample applications of every operation, for the tests that iterate over the registry.
            pub fn samples() -> Vec<Sample> {
                let mut all = Vec::new();
                $($(all.extend(<$module::$variant as OpRule>::samples());)*)*
                all
            }
        }
    };
}

/// Declares a leaf: an operation without arguments whose content comes from outside.
macro_rules! leaf {
    ($(#[doc = $doc:literal])* $name:ident = $text:literal) => {
        op! {
            $(#[doc = $doc])*
            $name = $text {
                /// Unique name.
                name: String,
                /// Element type.
                dtype: crate::types::DType,
                /// Extent of each axis.
                shape: Vec<usize>,
            },

            fn infer(&self, args: &[&crate::types::TensorType]) -> Result<crate::types::TensorType, String> {
                crate::ops::rule::arity::<0>(args)?;
                Ok(crate::types::TensorType::new(self.dtype, self.shape.clone()))
            }

            fn eval(&self, _args: &[&crate::tensor::Tensor], _ty: &crate::types::TensorType) -> crate::tensor::Tensor {
                unreachable!("the interpreter takes leaves from its caller")
            }

            fn grad(&self, _cx: &mut crate::grad::Backward<'_>) {}

            fn class(&self) -> crate::ops::rule::Class {
                crate::ops::rule::Class::Leaf
            }

            fn samples() -> Vec<crate::ops::rule::Sample> {
                Vec::new()
            }
        }
    };
}

/// Declares an operation's struct with its name, documentation and text attributes.
macro_rules! op {
    ($(#[doc = $doc:literal])* $name:ident = $text:literal { $($(#[doc = $field_doc:literal])* $field:ident: $ty:ty),* $(,)? }, $($rule:tt)*) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $name { $($(#[doc = $field_doc])* pub $field: $ty),* }

        impl crate::ops::rule::OpRule for $name {
            const NAME: &'static str = $text;
            const DOC: &'static str = concat!($($doc, "\n"),*);

            fn attrs(&self) -> Vec<(&'static str, String)> {
                vec![$((stringify!($field), crate::ops::attr::Attr::write(&self.$field))),*]
            }

            fn from_attrs(attrs: &[(&str, &str)]) -> Result<Self, String> {
                let _ = attrs;
                Ok(Self { $($field: crate::ops::rule::read_attr(attrs, stringify!($field))?),* })
            }

            $($rule)*
        }
    };
}

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())?;
        let attrs = self.attrs();
        if !attrs.is_empty() {
            let parts: Vec<String> = attrs.iter().map(|(key, value)| format!("{key}={value}")).collect();
            write!(f, "{{{}}}", parts.join(", "))?;
        }
        Ok(())
    }
}

registry! {
    "leaf": { input::Input, weight::Weight, param::Param, state::State, constant::Constant, iota::Iota }
    "unary": { neg::Neg, exp::Exp, log::Log, sqrt::Sqrt, recip::Recip, sin::Sin, cos::Cos, erf::Erf, tanh::Tanh, sigmoid::Sigmoid, cast::Cast, narrow::Narrow }
    "binary": { add::Add, sub::Sub, mul::Mul, div::Div, maximum::Maximum, less::Less, equal::Equal, uniform::Uniform }
    "ternary": { select::Select }
    "reduction": { sum::Sum, reduce_max::ReduceMax }
    "view": { reshape::Reshape, permute::Permute, expand::Expand, slice::Slice, pad::Pad, stop_gradient::StopGradient, tag::Tag, widen::Widen }
    "kernel": { dot::Dot, dot_tiles::DotTiles, gather::Gather, scatter::Scatter, pack_f16::PackF16 }
    "composite": {
        rms_norm::RmsNorm, layer_norm::LayerNorm, swiglu::SwiGlu, rope::Rope, lora_linear::LoraLinear, attention::Attention,
        attention_lse::AttentionLse, attention_grad::AttentionGrad, cross_entropy::CrossEntropy, cosine_align::CosineAlign,
        unit_rows::UnitRows, global_norm::GlobalNorm, adamw::AdamW,
    }
}
