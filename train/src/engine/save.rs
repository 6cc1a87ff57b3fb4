//! What a run leaves: an adapter directory, and where the whole language model is trained, a model directory.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use viral_model::adapter::{Adapter, Parameter};
use viral_model::weights::WeightPiece;

use super::bundle::{Bundle, lora_config, residual_config};
use super::init;
use super::session::{Session, kept_tensors};
use super::step_graph::trainable;
use crate::config::Stage;
use crate::error::{Error, Result};
use crate::store::{Disk, Part, put, write_folder};

/// Writes the trained tensors as an adapter directory, as a whole or not at all.
///
/// # Errors
/// What a device or a disk can refuse.
pub(super) fn adapter(bundle: &Bundle, session: &Session, disk: &dyn Disk, dir: &Path) -> Result<()> {
    let adapter = trained(bundle, session)?;
    let mut parts = parts(&adapter, dir)?;
    if bundle.config.train.stage == Stage::Pretrain {
        let file = adapter.original_projector(dir)?;
        parts.push(Part::pieces(file.name, file.pieces));
    }
    write_folder(disk, dir, parts, false)
}

/// The trained tensors that belong into an adapter directory, and an alignment projector that was kept frozen.
///
/// # Errors
/// What a device can refuse.
pub(super) fn trained(bundle: &Bundle, session: &Session) -> Result<Adapter> {
    let names = session.parameter_names().filter(|name| Adapter::holds(name));
    let read = names.map(|name| Ok((name.to_owned(), session.parameter(name)?)));
    let mut parameters = read.collect::<Result<BTreeMap<_, _>>>()?;
    for (name, ty) in kept_tensors(&bundle.config, &bundle.networks) {
        let values = init::whole(bundle, &name, &ty)?;
        parameters.insert(name, Parameter { shape: ty.shape, values });
    }
    let lora = trainable(&bundle.config).adapters.then(|| lora_config(&bundle.config));
    Ok(Adapter { lora, residual: residual_config(&bundle.config), parameters })
}

/// The files of an adapter directory.
///
/// # Errors
/// None that a user can cause.
pub(super) fn parts<'a>(adapter: &'a Adapter, dir: &Path) -> Result<Vec<Part<'a>>> {
    let files = adapter.files(dir)?;
    Ok(files.into_iter().map(|file| Part::pieces(file.name, file.pieces)).collect())
}

/// Writes the model that the run has made of the one it started from, where that is more than an adapter directory can
/// hold: the same files, with the trained tensors replaced.
///
/// # Errors
/// What a device or a disk can refuse.
pub(super) fn model(bundle: &Bundle, session: &Session, disk: &dyn Disk, dir: &Path) -> Result<()> {
    if session.parameter_names().all(Adapter::holds) {
        return Ok(());
    }
    let trained: BTreeSet<&str> = session.parameter_names().collect();
    let mut parts = side_files(&bundle.config.model.path)?;
    for file in bundle.model().with_replaced(|name| trained.contains(name))? {
        let bytes = file.pieces.iter().map(|piece| piece.bytes() as u64).sum();
        parts.push(Part::new(file.name, bytes, move |out| {
            file.pieces.iter().try_for_each(|piece| match piece {
                WeightPiece::Stored(bytes) => put(out, bytes),
                WeightPiece::Replaced { name, dtype, .. } => put(out, &dtype.encode(&session.parameter(name)?.values)),
            })
        }));
    }
    write_folder(disk, dir, parts, false)
}

/// What a model directory holds besides weights: configurations, tokenizer, templates, index.
fn side_files(dir: &Path) -> Result<Vec<Part<'static>>> {
    const EXTENSIONS: [&str; 4] = ["json", "txt", "model", "jinja"];
    let unreadable = |path: &Path, error| Error::io("read", path, &error);
    let mut parts = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| unreadable(dir, error))? {
        let path = entry.map_err(|error| unreadable(dir, error))?.path();
        let is_side = path.extension().is_some_and(|found| EXTENSIONS.iter().any(|extension| found == *extension));
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| is_side && path.is_file()) else {
            continue;
        };
        let content = fs::read(&path).map_err(|error| unreadable(&path, error))?;
        parts.push(Part::pieces(name, vec![Cow::Owned(content)]));
    }
    Ok(parts)
}
