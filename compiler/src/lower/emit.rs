//! WGSL text of generated kernels.
//!
//! Every size and stride is a word of the parameter struct, so kernels of equal structure have equal text and share one
//! pipeline, whatever the shapes. Work items compute one element or four neighbours (`vec4`) along the innermost
//! dimension.

use std::collections::HashMap;
use std::fmt::Write as _;

use viral_shaders::{Access, DeviceClass, Kernel, Requirements, Target};

use super::affine::{Affine, Guard};
use super::body::{Body, ExprId, ExprKind};
use super::cluster::Kind;
use crate::ir::{Graph, Value};
use crate::ops::Real;
use crate::types::DType;

/// A kernel with what one dispatch of it needs, but for buffers.
#[derive(Clone, Debug)]
pub(crate) struct Emitted {
    pub(crate) kernel: Kernel,
    pub(crate) params: Vec<u32>,
    pub(crate) groups: [u32; 3],
    /// The value in memory behind each storage binding.
    pub(crate) bindings: Vec<Value>,
}

/// Emits a body. `memory` says which value's memory holds another: an output that replaces a state tensor lives where the
/// state does. `shares_buffer` tells whether two values lie in one external buffer.
pub(crate) fn emit(
    graph: &Graph,
    body: &Body,
    kind: Kind,
    name: String,
    memory: &dyn Fn(Value) -> Value,
    shares_buffer: &dyn Fn(Value, Value) -> bool,
    target: &Target,
) -> Emitted {
    let mut emitter = Emitter::new(graph, body, memory, target);
    let (text, workgroup, groups) = match kind {
        Kind::Map { .. } => emitter.map(),
        Kind::Row { .. } => emitter.row(),
        Kind::Column { .. } => emitter.column(),
        Kind::Single => unreachable!("hand-tuned kernels are linked, not emitted"),
    };
    let stores: Vec<Value> = body.stores.iter().map(|store| memory(store.value)).collect();
    let access: Vec<Access> = emitter
        .bindings
        .iter()
        .map(|&(value, _)| {
            // wgpu tracks usage per buffer: what shares a buffer with a result is bound like one.
            let written = stores.iter().any(|&store| store == value || shares_buffer(store, value));
            if written { Access::ReadWrite } else { Access::Read }
        })
        .collect();
    let wgsl = emitter.module(&access, &text, workgroup, matches!(kind, Kind::Row { .. }));
    let kernel = Kernel {
        name,
        wgsl,
        bindings: access,
        param_words: emitter.params.len() as u32,
        workgroup,
        requires: Requirements::default(),
    };
    Emitted {
        kernel,
        params: emitter.params,
        groups,
        bindings: emitter.bindings.into_iter().map(|(value, _)| value).collect(),
    }
}

struct Emitter<'b> {
    graph: &'b Graph,
    body: &'b Body,
    memory: &'b dyn Fn(Value) -> Value,
    target: &'b Target,
    /// Neighbouring elements per work item: 1 or 4.
    width: usize,
    /// Whether work items move along each dimension, and which is the innermost.
    inner: Option<usize>,
    params: Vec<u32>,
    /// Values in memory, and whether they are bound as arrays of `vec4`.
    bindings: Vec<(Value, bool)>,
    binding_of: HashMap<Value, usize>,
}

impl<'b> Emitter<'b> {
    fn new(graph: &'b Graph, body: &'b Body, memory: &'b dyn Fn(Value) -> Value, target: &'b Target) -> Self {
        let inner = body
            .dims
            .len()
            .checked_sub(1)
            .filter(|_| body.parts.iter().rev().nth(1).is_none_or(|&end| end < body.dims.len()));
        let mut this = Self {
            graph,
            body,
            memory,
            target,
            width: 1,
            inner,
            params: Vec::new(),
            bindings: Vec::new(),
            binding_of: HashMap::new(),
        };
        if this.can_be_wide() {
            this.width = 4;
        }
        for expr in &body.exprs {
            if let ExprKind::Load { source, at, .. } = &expr.kind {
                this.bind(*source, at);
            }
        }
        for store in &body.stores {
            this.bind(store.value, &store.at);
        }
        this
    }

    fn bind(&mut self, value: Value, at: &Affine) {
        let value = (self.memory)(value);
        let index = *self.binding_of.entry(value).or_insert_with(|| {
            self.bindings.push((value, false));
            self.bindings.len() - 1
        });
        self.bindings[index].1 |= self.is_wide(value, at);
    }

    /// Whether four neighbours along the innermost dimension can be computed at once.
    fn can_be_wide(&self) -> bool {
        let Some(inner) = self.inner else { return false };
        let aligned_guards = |guards: &[Guard]| {
            guards.iter().all(|guard| {
                guard.position.terms[inner] == 0 || (guard.extent % 4 == 0 && aligned(&guard.position, inner))
            })
        };
        let guards = self.body.exprs.iter().all(|expr| match &expr.kind {
            ExprKind::Load { guards, .. } | ExprKind::Guarded { guards, .. } => aligned_guards(guards),
            _ => true,
        });
        let stores = self.body.stores.iter().all(|store| {
            let len = self.graph.ty(store.value).len();
            store.at.terms[inner] == 0 || (len.is_multiple_of(4) && aligned(&store.at, inner))
        });
        self.body.dims[inner].is_multiple_of(4) && guards && stores
    }

    /// Whether the access moves four neighbours as one `vec4`.
    fn is_wide(&self, value: Value, at: &Affine) -> bool {
        let Some(inner) = self.inner else { return false };
        self.width == 4 && aligned(at, inner) && self.graph.ty(value).len().is_multiple_of(4)
    }

    fn word(&mut self, number: i64) -> String {
        // Positions before the first element wrap around, and so does the sum that brings them back.
        self.params.push(number as u32);
        format!("p.w{}", self.params.len() - 1)
    }

    fn affine(&mut self, at: &Affine) -> String {
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

    fn condition(&mut self, guards: &[Guard]) -> String {
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
    fn element(&self, binding: usize, position: &str) -> String {
        match self.bindings[binding].1 {
            true => format!("b{binding}[({position}) >> 2u][({position}) & 3u]"),
            false => format!("b{binding}[{position}]"),
        }
    }

    fn load(&mut self, source: Value, at: &Affine, dtype: DType) -> String {
        let memory = (self.memory)(source);
        let binding = self.binding_of[&memory];
        let step = self.inner.map_or(0, |inner| at.terms[inner]);
        let position = self.affine(at);
        let stored = alias(stored_type(dtype));
        let raw = if self.width == 1 {
            self.element(binding, &position)
        } else if self.is_wide(memory, at) {
            format!("b{binding}[({position}) >> 2u]")
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
    fn define(&mut self, id: ExprId) -> String {
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
                    (4, 1) => format!("U({position}) + LANES"),
                    (4, step) if step != 0 => {
                        let step = self.word(step);
                        format!("U({position}) + LANES * {step}")
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
        };
        format!("let e{id} = {value};\n")
    }

    fn store(&mut self, index: usize) -> String {
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
        if self.is_wide(memory, &store.at) {
            return format!("b{binding}[({position}) >> 2u] = {value};\n");
        }
        let first = if self.width == 4 { format!("({value}).x") } else { value };
        format!("{} = {first};\n", self.element(binding, &position))
    }

    /// Defines the expressions that `roots` need and `wanted` admits, in order.
    fn define_all(&mut self, roots: &[ExprId], wanted: impl Fn(ExprId) -> bool) -> String {
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

    /// Recovers the indices of `dims` from the flat number in `flat`. `cells` numbers cells of `width` elements.
    fn unflatten(&mut self, flat: &str, dims: std::ops::Range<usize>, cells: bool) -> String {
        let mut text = String::new();
        let mut rest = flat.to_owned();
        for dim in dims.clone().rev() {
            let width = if cells && Some(dim) == self.inner { self.width } else { 1 };
            let scale = if width == 4 { " * 4u" } else { "" };
            if dim == dims.start {
                let _ = writeln!(text, "let i{dim} = ({rest}){scale};");
            } else {
                let extent = self.word((self.body.dims[dim] / width) as i64);
                let _ = writeln!(text, "let i{dim} = (({rest}) % {extent}){scale};");
                let _ = writeln!(text, "let rest{dim} = ({rest}) / {extent};");
                rest = format!("rest{dim}");
            }
        }
        text
    }

    fn extent(&self, dims: std::ops::Range<usize>) -> usize {
        self.body.dims[dims].iter().product()
    }

    /// Work items for `(rows, cells)`: the statements that set `row` and `cell`, the workgroup, and the grid.
    fn grid(&mut self, rows: usize, cells: usize) -> (String, [u32; 3], [u32; 3]) {
        let limit = self.target.max_workgroups_per_dimension as usize;
        let width = match cells {
            _ if rows == 1 => 64,
            48.. => 64,
            24.. => 32,
            _ => 16,
        };
        let height = 64 / width;
        let (columns, lines) = (cells.div_ceil(width), rows.div_ceil(height));
        let (n_rows, n_cells) = (self.word(rows as i64), self.word(cells as i64));
        // One long row folds along y; many rows fold along z.
        let (row, cell, groups) = if rows == 1 {
            let y = columns.div_ceil(limit);
            ("0u".to_owned(), format!("(wg.y * nwg.x + wg.x) * {width}u + lid.x"), [columns.div_ceil(y), y, 1])
        } else {
            let z = lines.div_ceil(limit);
            (
                format!("(wg.z * nwg.y + wg.y) * {height}u + lid.y"),
                format!("wg.x * {width}u + lid.x"),
                [columns, lines.div_ceil(z), z],
            )
        };
        let text =
            format!("let row = {row};\nlet cell = {cell};\nif (row >= {n_rows} || cell >= {n_cells}) {{ return; }}\n");
        (text, [width as u32, height as u32, 1], groups.map(|n| n as u32))
    }

    fn map(&mut self) -> (String, [u32; 3], [u32; 3]) {
        let rank = self.body.dims.len();
        let outer = rank.saturating_sub(1);
        let cells = self.inner.map_or(1, |inner| self.body.dims[inner] / self.width);
        let (mut text, workgroup, groups) = self.grid(self.extent(0..outer), cells);
        text += &self.unflatten("row", 0..outer, false);
        text += &self.unflatten("cell", outer..rank, true);
        let roots: Vec<ExprId> = self.body.stores.iter().map(|store| store.expr).collect();
        text += &self.define_all(&roots, |_| true);
        for index in 0..self.body.stores.len() {
            text += &self.store(index);
        }
        (text, workgroup, groups)
    }

    fn column(&mut self) -> (String, [u32; 3], [u32; 3]) {
        let [outer, reduced, rank] = [self.body.parts[0], self.body.parts[1], self.body.dims.len()];
        // The innermost dimension varies along work items, everything else of the result along rows of them.
        let cells = self.inner.map_or(1, |inner| self.body.dims[inner] / self.width);
        let last = rank.saturating_sub(1).max(reduced);
        let rows = self.extent(0..outer) * self.extent(reduced..last);
        let (mut text, workgroup, groups) = self.grid(rows, cells);
        let middle = self.word(self.extent(reduced..last) as i64);
        let _ = writeln!(text, "let outer = row / {middle};\nlet middle = row % {middle};");
        text += &self.unflatten("outer", 0..outer, false);
        text += &self.unflatten("middle", reduced..last, false);
        text += &self.unflatten("cell", last..rank, true);
        let n = self.word(self.extent(outer..reduced) as i64);
        let reduction = self.body.reductions[0].clone();
        let _ = writeln!(text, "var acc = {};\nfor (var n = 0u; n < {n}; n++) {{", start(reduction.is_sum));
        text += &self.unflatten("n", outer..reduced, false);
        text += &self.define_all(&[reduction.arg], |_| true);
        let _ = writeln!(
            text,
            "acc = {};\n}}\nlet r0 = acc;",
            fold(reduction.is_sum, "acc", &format!("e{}", reduction.arg))
        );
        let store = self.body.stores[0].expr;
        text += &self.define(store);
        text += &self.store(0);
        (text, workgroup, groups)
    }

    fn row(&mut self) -> (String, [u32; 3], [u32; 3]) {
        let (rows_end, rank) = (self.body.parts[0], self.body.dims.len());
        let (rows, columns) = (self.extent(0..rows_end), self.extent(rows_end..rank) / self.width);
        let lanes = self.row_lanes(columns);
        let limit = self.target.max_workgroups_per_dimension as usize;
        let y = rows.div_ceil(limit);
        let (n_rows, n_cells) = (self.word(rows as i64), self.word(columns as i64));
        let mut text =
            format!("let row = wg.y * nwg.x + wg.x;\nif (row >= {n_rows}) {{ return; }}\nlet lane = lid.x;\n");
        text += &self.unflatten("row", 0..rows_end, false);

        let in_row = self.body.depends_on(rows_end..rank);
        let level = self.levels();
        let body = self.body;
        let last = level.iter().copied().max().unwrap_or(0);
        for phase in 0..=last {
            let per_row: Vec<ExprId> = (0..body.exprs.len()).filter(|&id| !in_row[id] && level[id] == phase).collect();
            for id in per_row {
                text += &self.define(id);
            }
            let folds: Vec<usize> =
                (0..body.reductions.len()).filter(|&r| level[body.reductions[r].arg] == phase).collect();
            if folds.is_empty() {
                continue;
            }
            for &r in &folds {
                let _ = writeln!(text, "var acc{r} = {};", start(body.reductions[r].is_sum));
            }
            let _ = writeln!(text, "for (var cell = lane; cell < {n_cells}; cell += {lanes}u) {{");
            text += &self.unflatten("cell", rows_end..rank, true);
            let args: Vec<ExprId> = folds.iter().map(|&r| body.reductions[r].arg).collect();
            text += &self.define_all(&args, |id| in_row[id]);
            for &r in &folds {
                let reduction = &body.reductions[r];
                let _ = writeln!(
                    text,
                    "acc{r} = {};",
                    fold(reduction.is_sum, &format!("acc{r}"), &format!("e{}", reduction.arg))
                );
            }
            text += "}\n";
            for &r in &folds {
                let name = if body.reductions[r].is_sum { "sum" } else { "max" };
                let _ = writeln!(text, "let r{r} = wg_{name}(lane, across_{name}(acc{r}));");
            }
        }
        let (once, all): (Vec<usize>, Vec<usize>) = (0..body.stores.len()).partition(|&s| body.stores[s].per_row);
        if !once.is_empty() {
            text += "if (lane == 0u) {\n";
            for index in once {
                text += &self.store(index);
            }
            text += "}\n";
        }
        if !all.is_empty() {
            let _ = writeln!(text, "for (var cell = lane; cell < {n_cells}; cell += {lanes}u) {{");
            text += &self.unflatten("cell", rows_end..rank, true);
            let roots: Vec<ExprId> = all.iter().map(|&s| body.stores[s].expr).collect();
            text += &self.define_all(&roots, |id| in_row[id]);
            for index in all {
                text += &self.store(index);
            }
            text += "}\n";
        }
        (text, [lanes, 1, 1], [rows.div_ceil(y) as u32, y as u32, 1])
    }

    /// Work items that share a row. On a software device a workgroup that is wider than a vector costs more than it brings.
    fn row_lanes(&self, cells: usize) -> u32 {
        match self.target.class {
            DeviceClass::Cpu => self.target.fixed_subgroup().unwrap_or(8),
            DeviceClass::Gpu => {
                (cells.next_power_of_two() as u32).clamp(32, 256.min(self.target.max_workgroup_invocations))
            }
        }
    }

    /// How many reductions an expression waits for, one after the other.
    fn levels(&self) -> Vec<usize> {
        let mut levels: Vec<usize> = Vec::with_capacity(self.body.exprs.len());
        for expr in &self.body.exprs {
            let level = match &expr.kind {
                ExprKind::Load { .. } | ExprKind::Constant(_) | ExprKind::Index(_) => 0,
                ExprKind::Apply { args, .. } => args.iter().map(|&arg| levels[arg]).max().unwrap_or(0),
                ExprKind::Guarded { value, .. } => levels[*value],
                ExprKind::Reduced(index) => levels[self.body.reductions[*index].arg] + 1,
            };
            levels.push(level);
        }
        levels
    }

    fn module(&self, access: &[Access], main: &str, workgroup: [u32; 3], is_row: bool) -> String {
        let mut text = String::new();
        let vector = |scalar: &str| if self.width == 4 { format!("vec4<{scalar}>") } else { scalar.to_owned() };
        for (name, scalar) in [("F", "f32"), ("U", "u32"), ("I", "i32"), ("B", "bool")] {
            let _ = writeln!(text, "alias {name} = {};", vector(scalar));
        }
        text += if self.width == 4 { "const LANES = vec4<u32>(0u, 1u, 2u, 3u);\n" } else { "" };
        text += "struct Params {\n";
        for index in 0..self.params.len() {
            let _ = writeln!(text, "    w{index}: u32,");
        }
        text += "}\n@group(0) @binding(0) var<uniform> p: Params;\n";
        for (index, (&(value, wide), access)) in self.bindings.iter().zip(access).enumerate() {
            let scalar = stored_type(self.graph.ty(value).dtype).name();
            let element = if wide { format!("vec4<{scalar}>") } else { scalar.to_owned() };
            let mode = if *access == Access::Read { "read" } else { "read_write" };
            let _ =
                writeln!(text, "@group(0) @binding({}) var<storage, {mode}> b{index}: array<{element}>;", index + 1);
        }
        if main.contains("erf(") || main.contains("uniform01(") {
            text += viral_shaders::MATH;
        }
        if is_row {
            let _ = writeln!(text, "const ROW_LANES = {}u;", workgroup[0]);
            text += if self.width == 4 { ACROSS_VEC4 } else { ACROSS_SCALAR };
            text += viral_shaders::ROW_REDUCE;
        }
        let [x, y, z] = workgroup;
        let _ = writeln!(
            text,
            "@compute @workgroup_size({x}, {y}, {z})\nfn main(@builtin(workgroup_id) wg: vec3<u32>, \
             @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_id) lid: vec3<u32>) {{"
        );
        text += main;
        text += "}\n";
        text
    }
}

const ACROSS_VEC4: &str = "fn across_sum(x: F) -> f32 { return (x.x + x.y) + (x.z + x.w); }
fn across_max(x: F) -> f32 { return max(max(x.x, x.y), max(x.z, x.w)); }
";
const ACROSS_SCALAR: &str = "fn across_sum(x: F) -> f32 { return x; }
fn across_max(x: F) -> f32 { return x; }
";

/// Whether neighbours along `inner` are neighbours in memory, four of them always in one aligned cell.
fn aligned(at: &Affine, inner: usize) -> bool {
    let others = at.terms.iter().enumerate().filter(|&(dim, _)| dim != inner).all(|(_, term)| term % 4 == 0);
    at.terms[inner] == 1 && others && at.offset % 4 == 0
}

/// How a type is stored: truth values are words.
fn stored_type(dtype: DType) -> DType {
    if dtype == DType::Bool { DType::U32 } else { dtype }
}

fn alias(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "F",
        DType::I32 => "I",
        DType::U32 => "U",
        DType::Bool => "B",
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
        DType::F32 => format!("F({:?})", number as f32),
        DType::I32 => format!("I({}i)", number as i32),
        DType::U32 => format!("U({}u)", number as u32),
        DType::Bool => format!("B({})", number != 0.0),
    }
}

/// Neutral element of a reduction.
fn start(is_sum: bool) -> &'static str {
    if is_sum { "F(0.0)" } else { "F(-3.4028234e38)" }
}

fn fold(is_sum: bool, acc: &str, x: &str) -> String {
    if is_sum { format!("{acc} + {x}") } else { format!("max({acc}, {x})") }
}
