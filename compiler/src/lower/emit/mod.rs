//! WGSL text of generated kernels.
//!
//! Every size and stride is a word of the parameter struct, so kernels of equal structure have equal text and share one
//! pipeline, whatever the shapes. Work items compute one element or four neighbours (`vec4`) along the innermost
//! dimension.
//!
//! `expr.rs` writes the statements of one point; `shapes.rs` the kernel around them, one function a shape; `hook.rs` the
//! epilogue of a matrix product instead; this page binds memory and puts the module together.

mod expr;
mod hook;
mod shapes;

use std::collections::HashMap;
use std::fmt::Write as _;

use viral_shaders::{Access, DeviceClass, Kernel, Requirements, Storage, Target};

use crate::ir::{Graph, Value};
use crate::lower::affine::{Affine, Guard};
use crate::lower::body::{Body, ExprKind};
use crate::lower::cluster::Kind;
use crate::types::DType;

pub(crate) use hook::hook;

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
/// state does. `shares_buffer` tells whether two values lie in one external buffer. Fails with a stored value that only fours
/// of neighbours can hold where the body cannot be computed so.
pub(crate) fn emit(
    graph: &Graph,
    body: &Body,
    kind: Kind,
    name: String,
    memory: &dyn Fn(Value) -> Value,
    shares_buffer: &dyn Fn(Value, Value) -> bool,
    target: &Target,
) -> Result<Emitted, Value> {
    let mut emitter = Emitter::new(graph, body, memory, target, Names::KERNEL);
    if emitter.can_be_wide() {
        emitter.width = 4;
    } else if let Some(value) = emitter.stores_by_fours() {
        return Err(value);
    }
    emitter.bind_all(None);
    let (text, workgroup, groups) = match kind {
        Kind::Map { .. } => emitter.map(),
        Kind::Row { .. } => emitter.row(),
        Kind::Column { .. } => emitter.column(),
        Kind::Product { .. } | Kind::Single => unreachable!("hand-tuned kernels are linked, not emitted"),
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
    let is_row = matches!(kind, Kind::Row { .. });
    let wgsl = emitter.module(&access, &text, workgroup, is_row);
    let int64 = (0..emitter.bindings.len()).any(|binding| emitter.is_packed(binding));
    let subgroups = is_row && emitter.is_vector(workgroup[0]);
    let kernel = Kernel {
        name,
        wgsl,
        bindings: access,
        param_words: emitter.params.len() as u32,
        workgroup,
        requires: Requirements { int64, subgroups, ..Requirements::default() },
    };
    Ok(Emitted {
        kernel,
        params: emitter.params,
        groups,
        bindings: emitter.bindings.into_iter().map(|(value, _)| value).collect(),
    })
}

struct Emitter<'b> {
    graph: &'b Graph,
    body: &'b Body,
    memory: &'b dyn Fn(Value) -> Value,
    target: &'b Target,
    names: Names,
    /// Neighbouring elements per work item: 1 or 4.
    width: usize,
    /// Whether work items move along each dimension, and which is the innermost.
    inner: Option<usize>,
    params: Vec<u32>,
    /// Values in memory, and whether they are bound as arrays of `vec4`.
    bindings: Vec<(Value, bool)>,
    binding_of: HashMap<Value, usize>,
}

/// What parameters and buffers are called; a number follows.
#[derive(Clone, Copy, Debug)]
struct Names {
    word: &'static str,
    buffer: &'static str,
}

impl Names {
    const KERNEL: Names = Names { word: "w", buffer: "b" };
}

impl<'b> Emitter<'b> {
    fn new(
        graph: &'b Graph,
        body: &'b Body,
        memory: &'b dyn Fn(Value) -> Value,
        target: &'b Target,
        names: Names,
    ) -> Self {
        let inner = body
            .dims
            .len()
            .checked_sub(1)
            .filter(|_| body.parts.iter().rev().nth(1).is_none_or(|&end| end < body.dims.len()));
        Self {
            graph,
            body,
            memory,
            target,
            names,
            width: 1,
            inner,
            params: Vec::new(),
            bindings: Vec::new(),
            binding_of: HashMap::new(),
        }
    }

    /// Binds what is loaded and stored, but for one result that goes another way.
    fn bind_all(&mut self, but: Option<Value>) {
        let body = self.body;
        for expr in &body.exprs {
            if let ExprKind::Load { source, at, .. } = &expr.kind {
                self.bind(*source, at);
            }
        }
        for store in body.stores.iter().filter(|store| Some(store.value) != but) {
            self.bind(store.value, &store.at);
        }
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

    /// A stored value whose type only whole words of memory can hold, and so only fours of neighbours.
    fn stores_by_fours(&self) -> Option<Value> {
        let mut stored = self.body.stores.iter().map(|store| store.value);
        stored.find(|&value| self.graph.ty(value).dtype.is_storage())
    }

    /// Whether the access moves four neighbours as one `vec4`.
    fn is_wide(&self, value: Value, at: &Affine) -> bool {
        let Some(inner) = self.inner else { return false };
        self.width == 4 && aligned(at, inner) && self.graph.ty(value).len().is_multiple_of(4)
    }

    /// Whether a binding is an array of pairs of 64-bit words, which a software device gathers as fast as words of 32 bits.
    fn is_packed(&self, binding: usize) -> bool {
        let (value, wide) = self.bindings[binding];
        let fits = self.target.class == DeviceClass::Cpu && self.target.int64;
        let stores = || self.body.stores.iter().filter(|store| (self.memory)(store.value) == value);
        wide && fits && self.graph.ty(value).dtype == DType::F32 && stores().all(|store| self.is_wide(value, &store.at))
    }

    fn module(&self, access: &[Access], main: &str, workgroup: [u32; 3], is_row: bool) -> String {
        let mut text = self.aliases();
        text += "struct Params {\n";
        for index in 0..self.params.len() {
            let _ = writeln!(text, "    {}{index}: u32,", self.names.word);
        }
        text += "}\n@group(0) @binding(0) var<uniform> p: Params;\n";
        text += &self.declarations(access, 1);
        text += &self.functions(main);
        text += Storage::functions(main);
        text += if (0..self.bindings.len()).any(|binding| self.is_packed(binding)) { viral_shaders::WIDE } else { "" };
        if is_row {
            let _ = writeln!(text, "const ROW_LANES = {}u;", workgroup[0]);
            text += if self.width == 4 { ACROSS_VEC4 } else { ACROSS_SCALAR };
            text += match self.is_vector(workgroup[0]) {
                true => viral_shaders::ROW_REDUCE_SUBGROUP,
                false => viral_shaders::ROW_REDUCE,
            };
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

    /// The types of an element's value in expressions.
    fn aliases(&self) -> String {
        let mut text = String::new();
        let vector = |scalar: &str| if self.width == 4 { format!("vec4<{scalar}>") } else { scalar.to_owned() };
        for (name, scalar) in [("F", "f32"), ("U", "u32"), ("I", "i32"), ("B", "bool")] {
            let _ = writeln!(text, "alias {name} = {};", vector(scalar));
        }
        text += if self.width == 4 { "const NEIGHBOURS = vec4<u32>(0u, 1u, 2u, 3u);\n" } else { "" };
        text
    }

    /// The storage bindings, from number `first` on.
    fn declarations(&self, access: &[Access], first: u32) -> String {
        let mut text = String::new();
        for (index, (&(value, wide), access)) in self.bindings.iter().zip(access).enumerate() {
            let dtype = self.graph.ty(value).dtype;
            let element = match dtype.storage() {
                _ if self.is_packed(index) => "vec2<u64>".to_owned(),
                Some(storage) => storage.word(wide).to_owned(),
                None if wide => format!("vec4<{}>", stored_type(dtype).name()),
                None => stored_type(dtype).name().to_owned(),
            };
            let mode = if *access == Access::Read { "read" } else { "read_write" };
            let binding = index as u32 + first;
            let name = self.names.buffer;
            let _ =
                writeln!(text, "@group(0) @binding({binding}) var<storage, {mode}> {name}{index}: array<{element}>;");
        }
        text
    }

    /// The library functions that the statements call, but for those that read storage types.
    fn functions(&self, main: &str) -> String {
        let math = if main.contains("erf(") || main.contains("uniform01(") { viral_shaders::MATH } else { "" };
        let round = if main.contains("rounded_") || main.contains("packed_") { viral_shaders::ROUND } else { "" };
        [math, round].concat()
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
