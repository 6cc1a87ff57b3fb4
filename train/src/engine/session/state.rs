//! What a run needs to go on: trained tensors and moments, from the device to a file and back.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use viral_model::weights::{StoredDtype, TensorFile, TensorHead, safetensors_front};

use super::Session;
use crate::engine::layout::{Entry, Flat};
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
                let buffer = &self.buffers[&flat.buffer(entry.group)];
                put(out, &self.device.read(buffer, entry.offset..entry.offset + entry.ty.bytes())?)?;
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
            let values = view.to_f32()?;
            self.device.write(&self.buffers[&flat.buffer(entry.group)], entry.offset, bytemuck::cast_slice(&values))?;
        }
        Ok(())
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
