//! What a run needs to go on: trained tensors and moments, from the device to a file and back.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use viral_compiler::storage;
use viral_model::weights::{StoredDtype, TensorFile, TensorHead, safetensors_front};

use super::Session;
use crate::engine::layout::{BLOCK, Entry, Flat};
use crate::error::{Error, Kind, Result};
use crate::store::{Part, put};

/// Name of the file inside a checkpoint: `params.NAME`, `first_moments.NAME` and `second_moments.NAME` in f32.
pub(in crate::engine) const STATE_FILE: &str = "optimizer.safetensors";

/// What is kept. Gradients are not: between steps they are zero.
const KEPT: [Flat; 3] = [Flat::Param, Flat::FirstMoment, Flat::SecondMoment];

impl Session {
    /// The file of a checkpoint that [`Session::restore`] reads. Tensors come from the device one by one.
    ///
    /// # Errors
    /// None that a user can cause.
    pub(in crate::engine) fn state_part(&self) -> Result<Part<'_>> {
        let mut heads: Vec<TensorHead> = self.kept().map(|(flat, entry)| head(flat, entry)).collect();
        let front = safetensors_front(Path::new(STATE_FILE), &mut heads)?;
        let bytes = front.len() + heads.iter().map(TensorHead::bytes).sum::<usize>();
        let write = move |out: &mut dyn Write| {
            put(out, &front)?;
            for head in &heads {
                let found = self.kept().find(|(flat, entry)| key(*flat, entry) == head.name);
                let (flat, entry) = found.ok_or_else(|| Error::internal("a tensor has no place", head.name.clone()))?;
                put(out, bytemuck::cast_slice(&self.read_flat(flat, entry)?))?;
            }
            Ok(())
        };
        Ok(Part::new(STATE_FILE, bytes as u64, write))
    }

    /// Takes trained tensors and moments from a checkpoint.
    ///
    /// # Errors
    /// The file cannot be read, or has other tensors than this run trains.
    pub(in crate::engine) fn restore(&mut self, checkpoint: &Path) -> Result<()> {
        let path = checkpoint.join(STATE_FILE);
        let file = TensorFile::open(&path)?;
        let foreign = |what: String| Error {
            kind: Kind::Model,
            what,
            place: path.display().to_string(),
            why: "the checkpoint belongs to a run that trains other tensors".into(),
            hint: "resume with the configuration that the checkpoint was made with; it lies beside this file".into(),
        };
        let wanted: BTreeSet<String> = self.kept().map(|(flat, entry)| key(flat, entry)).collect();
        if let Some(name) = file.names().find(|&name| !wanted.contains(name)) {
            return Err(foreign(format!("tensor `{name}` is none of this run's")));
        }
        for (flat, entry) in self.kept() {
            let name = key(flat, entry);
            let view = file.get(&name).map_err(|_| foreign(format!("tensor `{name}` is missing")))?;
            if view.shape() != entry.ty.shape {
                let (found, expected) = (view.shape(), &entry.ty.shape);
                return Err(foreign(format!("tensor `{name}` has shape {found:?}, expected {expected:?}")));
            }
            self.write_flat(flat, entry, &view.to_f32()?)?;
        }
        Ok(())
    }

    /// A tensor in one of its group's buffers, as numbers.
    pub(in crate::engine) fn read_flat(&self, flat: Flat, entry: &Entry) -> Result<Vec<f32>> {
        let read = |flat: Flat| {
            let buffer = &self.buffers[&flat.buffer(entry.group)];
            self.device.read(buffer, self.layout.range(flat, entry))
        };
        let dtype = flat.dtype(self.layout.moments);
        let mut values = storage::decode(dtype, entry.ty.len(), &read(flat)?);
        if let (true, Some(scales)) = (dtype.is_storage(), flat.scales()) {
            let scales: Vec<f32> = bytemuck::pod_collect_to_vec(&read(scales)?);
            for (block, scale) in values.chunks_mut(BLOCK).zip(scales) {
                block.iter_mut().for_each(|x| *x *= scale);
            }
        }
        Ok(values)
    }

    /// The inverse of [`Session::read_flat`], to the bit.
    fn write_flat(&self, flat: Flat, entry: &Entry, values: &[f32]) -> Result<()> {
        let write = |flat: Flat, bytes: &[u8]| {
            let buffer = &self.buffers[&flat.buffer(entry.group)];
            self.device.write(buffer, self.layout.range(flat, entry).start, bytes)
        };
        let dtype = flat.dtype(self.layout.moments);
        let Some(scale_flat) = flat.scales().filter(|_| dtype.is_storage()) else {
            return Ok(write(flat, bytemuck::cast_slice(values))?);
        };
        let largest = |block: &[f32]| block.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let scales: Vec<f32> = values.chunks(BLOCK).map(largest).collect();
        let scaled = |(block, scale): (&[f32], &f32)| {
            let divisor = if *scale > 0.0 { *scale } else { 1.0 };
            block.iter().map(|x| x / divisor).collect::<Vec<f32>>()
        };
        let codes: Vec<f32> = values.chunks(BLOCK).zip(&scales).flat_map(scaled).collect();
        write(flat, &storage::encode(dtype, &codes))?;
        Ok(write(scale_flat, bytemuck::cast_slice(&scales))?)
    }

    fn kept(&self) -> impl Iterator<Item = (Flat, &Entry)> {
        KEPT.into_iter().flat_map(|flat| self.layout.entries.iter().map(move |entry| (flat, entry)))
    }
}

fn head(flat: Flat, entry: &Entry) -> TensorHead {
    TensorHead { name: key(flat, entry), dtype: StoredDtype::F32, shape: entry.ty.shape.clone() }
}

/// Name of a tensor in the file.
fn key(flat: Flat, entry: &Entry) -> String {
    format!("{}.{}", flat.name(), entry.name)
}
