//! What a run leaves: the trained tensors as an adapter directory.

use std::path::Path;

use viral_model::adapter::Adapter;

use super::bundle::{Bundle, lora_config};
use super::session::Session;
use crate::error::Result;

/// Writes the trained tensors, and an alignment projector that was kept frozen, as an adapter directory.
///
/// # Errors
/// What a device or a disk can refuse.
pub(super) fn adapter(bundle: &Bundle, session: &Session, dir: &Path) -> Result<()> {
    let parameters = session.parameters()?;
    Ok(Adapter { lora: Some(lora_config(&bundle.config)), parameters }.write(dir)?)
}
