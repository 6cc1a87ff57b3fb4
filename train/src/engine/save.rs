//! What a run leaves: the trained tensors as an adapter directory.

use std::path::Path;

use viral_model::adapter::{Adapter, Parameter};

use super::bundle::{Bundle, lora_config};
use super::init;
use super::session::{Session, kept_tensors};
use super::step_graph::trainable;
use crate::error::Result;
use crate::store::{Disk, Part, write_folder};

/// Writes the trained tensors as an adapter directory, as a whole or not at all.
///
/// # Errors
/// What a device or a disk can refuse.
pub(super) fn adapter(bundle: &Bundle, session: &Session, disk: &dyn Disk, dir: &Path) -> Result<()> {
    let adapter = trained(bundle, session)?;
    write_folder(disk, dir, parts(&adapter, dir)?, false)
}

/// The trained tensors that belong into an adapter directory, and an alignment projector that was kept frozen.
///
/// # Errors
/// What a device can refuse.
pub(super) fn trained(bundle: &Bundle, session: &Session) -> Result<Adapter> {
    let mut parameters = session.parameters()?;
    parameters.retain(|name, _| Adapter::holds(name));
    for (name, ty) in kept_tensors(&bundle.config, &bundle.networks) {
        let values = init::frozen(bundle, &name, &ty)?;
        parameters.insert(name, Parameter { shape: ty.shape, values });
    }
    let lora = trainable(&bundle.config).adapters.then(|| lora_config(&bundle.config));
    Ok(Adapter { lora, parameters })
}

/// The files of an adapter directory.
///
/// # Errors
/// None that a user can cause.
pub(super) fn parts<'a>(adapter: &'a Adapter, dir: &Path) -> Result<Vec<Part<'a>>> {
    let files = adapter.files(dir)?;
    Ok(files.into_iter().map(|file| Part::pieces(file.name, file.pieces)).collect())
}
