//! Statements of one point: positions, loads, expressions, stores.

use super::{Emitter, stored_type};
use crate::ir::Value;
use crate::lower::affine::{Affine, Guard};
use crate::lower::body::{ExprId, ExprKind};
use crate::ops::Real;
use crate::types::{DType, TensorType};

impl Emitter<'_> {
    pub(super) fn word(&mut self, number: i64) -> String {
        // Positions before the first element wrap around, and so does the sum that brings them back.
        self.params.push(number as u32);
        format!("p.{}{}", self.names.word, self.params.len() - 1)
    }

    pub(super) fn affine(&mut self, at: &Affine) -> String {
        let mut terms = Vec::new();
        for (dim, &term) in at.terms.iter().enumerate() {
            match term {
                0 => {}
                1 => terms.push(format!("i{dim}")),
                _ => {
                    let factor = self.word(term);
                    terms.push(format!("i{dim} * {factor}"));
                }
            }
        }
        if at.offset != 0 {
            terms.push(self.word(at.offset));
        }
        if terms.is_empty() { "0u".into() } else { terms.join(" + ") }
    }

    pub(super) fn condition(&mut self, guards: &[Guard]) -> String {
        let parts: Vec<String> = guards
            .iter()
            .map(|guard| {
                let position = self.affine(&guard.position);
                let extent = self.word(guard.extent);
                format!("({position}) < {extent}")
            })
            .collect();
        parts.join(" && ")
    }

    /// One element of a binding, whatever its array type.
    fn element(&mut self, binding: usize, position: &str) -> String {
        let array = format!("{}{binding}", self.names.buffer);
        let (value, wide) = self.bindings[binding];
        let ty = self.graph.ty(value);
        match ty.dtype.storage() {
            _ if self.is_packed(binding) => format!("unpacked({array}[({position}) >> 2u])[({position}) & 3u]"),
            Some(storage) => {
                let scales = self.scales(ty);
                storage.element(&array, wide, position, &scales)
            }
            None if wide => format!("{array}[({position}) >> 2u][({position}) & 3u]"),
            None => format!("{array}[{position}]"),
        }
    }

    /// Four neighbours in a binding that is bound as an array of fours.
    fn four(&mut self, binding: usize, position: &str) -> String {
        let array = format!("{}{binding}", self.names.buffer);
        let ty = self.graph.ty(self.bindings[binding].0);
        match ty.dtype.storage() {
            _ if self.is_packed(binding) => format!("unpacked({array}[({position}) >> 2u])"),
            Some(storage) => {
                let scales = self.scales(ty);
                storage.four(&array, &format!("({position}) >> 2u"), &scales)
            }
            None => format!("{array}[({position}) >> 2u]"),
        }
    }

    /// The word at which a tensor's scales begin, where it has any.
    fn scales(&mut self, ty: &TensorType) -> String {
        if ty.dtype.has_scales() { self.word(i64::from(ty.scales())) } else { String::new() }
    }

    pub(super) fn load(&mut self, source: Value, at: &Affine, dtype: DType) -> String {
        let memory = (self.memory)(source);
        let binding = self.binding_of[&memory];
        let step = self.inner.map_or(0, |inner| at.terms[inner]);
        let position = self.affine(at);
        let stored = alias(stored_type(dtype));
        let raw = if self.width == 1 {
            self.element(binding, &position)
        } else if self.is_wide(memory, at) {
            self.four(binding, &position)
        } else if step == 0 {
            format!("{stored}({})", self.element(binding, &position))
        } else {
            let step = self.word(step);
            let lanes: Vec<String> =
                (0..4).map(|lane| self.element(binding, &format!("{position} + {lane}u * {step}"))).collect();
            format!("{stored}({})", lanes.join(", "))
        };
        if dtype == DType::Bool { format!("({raw} != U(0u))") } else { raw }
    }

    /// A statement that defines `e{id}`.
    pub(super) fn define(&mut self, id: ExprId) -> String {
        let body = self.body;
        let expr = &body.exprs[id];
        let value = match &expr.kind {
            ExprKind::Load { source, at, guards } => {
                let load = self.load(*source, at, expr.dtype);
                if !guards.is_empty() {
                    let condition = self.condition(guards);
                    let zero = zero(expr.dtype);
                    return format!("var e{id} = {zero};\nif ({condition}) {{ e{id} = {load}; }}\n");
                }
                load
            }
            ExprKind::Constant(number) => literal(*number, expr.dtype),
            ExprKind::Index(at) => {
                let step = self.inner.map_or(0, |inner| at.terms[inner]);
                let position = self.affine(at);
                match (self.width, step) {
                    (4, 1) => format!("U({position}) + NEIGHBOURS"),
                    (4, step) if step != 0 => {
                        let step = self.word(step);
                        format!("U({position}) + NEIGHBOURS * {step}")
                    }
                    _ => format!("U({position})"),
                }
            }
            ExprKind::Apply { op, args } => {
                let names: Vec<String> = args.iter().map(|arg| format!("e{arg}")).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                op.wgsl(&names)
            }
            ExprKind::Guarded { guards, value } => {
                let condition = self.condition(guards);
                format!("select({}, e{value}, {condition})", zero(expr.dtype))
            }
            ExprKind::Reduced(index) => format!("F(r{index})"),
            ExprKind::Product => "value".into(),
        };
        format!("let e{id} = {value};\n")
    }

    pub(super) fn store(&mut self, index: usize) -> String {
        let body = self.body;
        let store = &body.stores[index];
        let memory = (self.memory)(store.value);
        let binding = self.binding_of[&memory];
        let position = self.affine(&store.at);
        let dtype = self.graph.ty(store.value).dtype;
        let mut value = format!("e{}", store.expr);
        if dtype == DType::Bool {
            value = format!("select(U(0u), U(1u), {value})");
        }
        if dtype.is_storage() {
            value = format!("packed_{dtype}({value})");
        }
        if self.is_packed(binding) {
            value = format!("packed({value})");
        }
        if self.is_wide(memory, &store.at) {
            return format!("{}{binding}[({position}) >> 2u] = {value};\n", self.names.buffer);
        }
        let first = if self.width == 4 { format!("({value}).x") } else { value };
        format!("{} = {first};\n", self.element(binding, &position))
    }

    /// Defines the expressions that `roots` need and `wanted` admits, in order.
    pub(super) fn define_all(&mut self, roots: &[ExprId], wanted: impl Fn(ExprId) -> bool) -> String {
        let mut needed = vec![false; self.body.exprs.len()];
        for &root in roots {
            needed[root] = true;
        }
        for id in (0..needed.len()).rev().filter(|&id| wanted(id)) {
            if needed[id] {
                match &self.body.exprs[id].kind {
                    ExprKind::Apply { args, .. } => args.iter().for_each(|&arg| needed[arg] = true),
                    ExprKind::Guarded { value, .. } => needed[*value] = true,
                    _ => {}
                }
            }
        }
        let ids: Vec<ExprId> = (0..needed.len()).filter(|&id| needed[id] && wanted(id)).collect();
        ids.into_iter().map(|id| self.define(id)).collect()
    }
}

fn alias(dtype: DType) -> &'static str {
    match dtype {
        DType::I32 => "I",
        DType::U32 => "U",
        DType::Bool => "B",
        // Storage types are decoded as they are loaded.
        _ => "F",
    }
}

fn zero(dtype: DType) -> String {
    match dtype {
        DType::Bool => "B(false)".into(),
        _ => literal(Real::new(0.0), dtype),
    }
}

fn literal(number: Real, dtype: DType) -> String {
    let number = number.get();
    match dtype {
        DType::I32 => format!("I({}i)", number as i32),
        DType::U32 => format!("U({}u)", number as u32),
        DType::Bool => format!("B({})", number != 0.0),
        _ => format!("F({:?})", number as f32),
    }
}
