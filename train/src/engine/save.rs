//! What a run leaves: the trained tensors as an adapter directory.

use std::path::Path;

use viral_model::adapter::{Adapter, Parameter};

use super::bundle::{Bundle, lora_config};
use super::init;
use super::session::{Session, kept_tensors};
use crate::error::Result;

/// Writes the trained tensors, and an alignment projector that was kept frozen, as an adapter directory.
///
/// # Errors
/// What a device or a disk can refuse.
pub(super) fn adapter(bundle: &Bundle, session: &Session, dir: &Path) -> Result<()> {
    let mut parameters = session.parameters()?;
    for (name, ty) in kept_tensors(&bundle.config, &bundle.networks) {
        let values = init::frozen(bundle, &name, &ty)?;
        parameters.insert(name, Parameter { shape: ty.shape, values });
    }
    Ok(Adapter { lora: Some(lora_config(&bundle.config)), parameters }.write(dir)?)
}
