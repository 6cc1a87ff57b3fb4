//! What follows a matrix product, as the text of its kernel's epilogue.

use std::fmt::Write as _;

use viral_shaders::gemm::Hook;
use viral_shaders::{Access, Target};

use super::{Emitter, Names};
use crate::ir::{Graph, Value};
use crate::lower::body::{Body, ExprId};

/// A hook with what one dispatch of it needs.
#[derive(Clone, Debug)]
pub(crate) struct EmittedHook {
    pub(crate) hook: Hook,
    pub(crate) params: Vec<u32>,
    /// The value in memory behind each of the hook's bindings.
    pub(crate) bindings: Vec<Value>,
}

const NAMES: Names = Names { word: "h", buffer: "hook_b" };

/// The epilogue that computes `body` at every cell and returns `result`, which the product's own kernel stores; other
/// results are stored by the hook. Without a result of its own the kernel stores the product, for nobody. `None` where the body
/// cannot be computed in cells of four elements and `vec4` asks for them, or a storage type does, which is stored by fours.
pub(crate) fn hook(
    graph: &Graph,
    body: &Body,
    name: String,
    result: Option<Value>,
    vec4: bool,
    memory: &dyn Fn(Value) -> Value,
    target: &Target,
) -> Option<EmittedHook> {
    let mut emitter = Emitter::new(graph, body, memory, target, NAMES);
    if vec4 && !emitter.can_be_wide() {
        return None;
    }
    emitter.width = if vec4 { 4 } else { 1 };
    if emitter.stores_by_fours().is_some_and(|_| !vec4) {
        return None;
    }
    emitter.bind_all(result);
    let (rows, rank) = (body.parts[0], body.dims.len());
    let mut main = String::from(
        "let row = ((at.batch.x * p.batch1 + at.batch.y) * p.batch2 + at.batch.z) * p.m + at.row;\nlet cell = at.column;\n",
    );
    main += &emitter.unflatten("row", 0..rows, false);
    main += &emitter.unflatten("cell", rows..rank, true);
    let roots: Vec<ExprId> = body.stores.iter().map(|store| store.expr).collect();
    main += &emitter.define_all(&roots, |_| true);
    let mut returned = "value".to_owned();
    for (index, store) in body.stores.iter().enumerate() {
        if Some(store.value) == result {
            returned = format!("e{}", store.expr);
        } else {
            main += &emitter.store(index);
        }
    }
    let access: Vec<Access> = emitter
        .bindings
        .iter()
        .map(|&(value, _)| match body.stores.iter().any(|store| memory(store.value) == value) {
            true => Access::ReadWrite,
            false => Access::Read,
        })
        .collect();
    let mut wgsl = emitter.aliases();
    wgsl += &emitter.declarations(&access, Hook::BINDING);
    wgsl += &emitter.functions(&main);
    let _ = writeln!(wgsl, "fn epilogue(value: Cell, at: At) -> Cell {{\n{main}return {returned};\n}}");
    Some(EmittedHook {
        hook: Hook { name, wgsl, bindings: access, param_words: emitter.params.len() as u32 },
        params: emitter.params,
        bindings: emitter.bindings.into_iter().map(|(value, _)| value).collect(),
    })
}
