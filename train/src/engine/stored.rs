//! How frozen tensors are stored on the device, and how their content gets there.

use std::borrow::Cow;
use std::collections::BTreeMap;

use viral_compiler::passes::tables;
use viral_compiler::storage;
use viral_compiler::types::{DType, TensorType};
use viral_compiler::{DeviceClass, Graph, Options, Target};
use viral_model::graph::{LeafSource, Origin};
use viral_runtime::Filling;

use super::init::Contents;
use crate::config::{Base, Config, Precision};
use crate::error::{Error, Result};

/// Elements that are converted and uploaded at a time; whole blocks of every storage type.
pub(crate) const PIECE: usize = 1 << 20;

/// Bytes that are written at a time where content repeats.
const FILL: usize = 4 << 20;

/// The storage types of the frozen tensors of a graph that are not kept as f32.
///
/// `model.base` is about the matrices of the language model. Types with scales would cost tables of tokens and the vision
/// networks more precision than they save memory: those are bf16 then. Vectors, convolutions, computed tables and what a run
/// adds to the model are f32.
fn storage_types(config: &Config, graph: &Graph) -> BTreeMap<String, DType> {
    let base = base(config);
    let other = if base.has_scales() { DType::BF16 } else { base };
    let stored = tables(graph).filter_map(|leaf| {
        let is_loaded =
            matches!(LeafSource::of(leaf.name), LeafSource::Tensor { origin: Origin::Model | Origin::Teacher, .. });
        let is_linear = leaf.name.starts_with("model.language_model.layers.");
        let dtype = if is_linear && base.can_store(&leaf.ty.shape) { base } else { other };
        let fits = is_loaded && leaf.ty.rank() == 2 && dtype.is_storage();
        fits.then(|| (leaf.name.to_owned(), dtype))
    });
    stored.collect()
}

/// The compiler's options for a graph, as far as the configuration says how numbers are stored.
pub(crate) fn options(config: &Config, graph: &Graph, target: &Target) -> Options {
    Options { storage: storage_types(config, graph), exact: EXACT, ..options_for(config.train.precision, target) }
}

/// The compiler's options for a graph that is computed in this precision.
pub(crate) fn options_for(precision: Precision, target: &Target) -> Options {
    Options {
        activations: activation_type(precision),
        cooperative: uses_matrices(precision, target).then_some(LEAST_COOPERATIVE),
        ..Options::new(target.clone())
    }
}

/// Whether large products are computed by cooperative matrices, out of 16-bit floats. A software device only emulates them.
fn uses_matrices(precision: Precision, target: &Target) -> bool {
    let is_wanted = precision != Precision::F32 && target.class == DeviceClass::Gpu;
    is_wanted && target.cooperative_matrix.is_some()
}

/// What losses are multiplied by before their gradients are taken, and gradients divided by when they are used: 16-bit floats
/// have no numbers below 2^-24, and gradients of a mean over many tokens do. A power of two changes no digit.
pub(crate) fn loss_scale(config: &Config, target: &Target) -> f32 {
    if uses_matrices(config.train.precision, target) { 16384.0 } else { 1.0 }
}

/// Fewest rows, columns and terms of a product for which packing operands and filling tiles is worth it: half the work of a
/// group of cooperative matrices.
const LEAST_COOPERATIVE: usize = 64;

/// What kernels keep in memory for one another.
pub(crate) fn activation_type(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
        Precision::F16 => DType::F16,
    }
}

/// Scopes whose values stay f32: the reference reconstructs in f32, whatever the rest of a run is in.
const EXACT: &[&str] = &["loss_ross"];

/// What the matrices of the language model are stored as.
fn base(config: &Config) -> DType {
    match config.model.base {
        Base::Auto => activation_type(config.train.precision),
        Base::F32 => DType::F32,
        Base::Bf16 => DType::BF16,
        Base::F16 => DType::F16,
        Base::Q8 => DType::Q8,
        Base::Nf4 => DType::NF4,
    }
}

/// Fills a buffer with a frozen tensor, in its type. Whatever its size, only a piece of it is in host memory at a time.
pub(crate) fn upload(contents: &dyn Contents, buffer: &mut Filling<'_>, name: &str, ty: &TensorType) -> Result<()> {
    if let Some(block) = contents.repeated(name, ty) {
        return fill(buffer, ty, &block);
    }
    let mut writer = Writer { buffer, ty, rest: Vec::new(), at: 0 };
    contents.frozen(name, ty, &mut |values| writer.take(values))?;
    writer.finish(name)
}

/// Writes a tensor that is one block again and again, whole blocks of every storage type: it is converted once.
fn fill(buffer: &mut Filling<'_>, ty: &TensorType, block: &[f32]) -> Result<()> {
    let bytes = encoded(ty.dtype, block);
    let (elements, scales) = bytes.split_at(ty.dtype.element_bytes(block.len()) as usize);
    let all = ty.dtype.element_bytes(ty.len());
    for (part, range) in [(elements, 0..all), (scales, all..ty.bytes())] {
        if range.is_empty() {
            continue;
        }
        let piece = part.repeat((FILL / part.len()).max(1));
        for at in range.clone().step_by(piece.len()) {
            let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            buffer.write(at, &piece[..piece.len().min(left)])?;
        }
    }
    Ok(())
}

/// Numbers as they are stored.
fn encoded(dtype: DType, values: &[f32]) -> Cow<'_, [u8]> {
    match dtype {
        DType::F32 => Cow::Borrowed(bytemuck::cast_slice(values)),
        _ => Cow::Owned(storage::encode(dtype, values)),
    }
}

/// Converts and writes a tensor piece by piece.
struct Writer<'w, 'd> {
    buffer: &'w mut Filling<'d>,
    ty: &'w TensorType,
    /// Elements that do not fill a block yet.
    rest: Vec<f32>,
    /// Elements written.
    at: usize,
}

impl Writer<'_, '_> {
    fn take(&mut self, mut values: &[f32]) -> Result<()> {
        if !self.rest.is_empty() {
            let missing = (DType::BLOCK - self.rest.len()).min(values.len());
            self.rest.extend(&values[..missing]);
            values = &values[missing..];
            if self.rest.len() == DType::BLOCK {
                let block = std::mem::take(&mut self.rest);
                self.write(&block)?;
            }
        }
        let (blocks, rest) = values.split_at(values.len() / DType::BLOCK * DType::BLOCK);
        self.rest.extend(rest);
        blocks.chunks(PIECE).try_for_each(|piece| self.write(piece))
    }

    fn write(&mut self, values: &[f32]) -> Result<()> {
        let dtype = self.ty.dtype;
        let bytes = encoded(dtype, values);
        let (elements, scales) = bytes.split_at(dtype.element_bytes(values.len()) as usize);
        self.buffer.write(dtype.element_bytes(self.at), elements)?;
        if !scales.is_empty() {
            let first = 4 * (self.at / DType::BLOCK) as u64;
            self.buffer.write(dtype.element_bytes(self.ty.len()) + first, scales)?;
        }
        self.at += values.len();
        Ok(())
    }

    fn finish(mut self, name: &str) -> Result<()> {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            self.write(&rest)?;
        }
        if self.at == self.ty.len() {
            return Ok(());
        }
        Err(Error::internal("a tensor has another size than its graph", name))
    }
}
