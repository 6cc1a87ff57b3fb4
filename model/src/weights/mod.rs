//! Weight files: safetensors or PyTorch's, single or sharded, in any naming dialect.
//!
//! [`Checkpoint::open`] maps the files and gives each tensor its canonical name ([`NameMap`]); an [`Inventory`] built
//! from the configuration says what must be there; [`Checkpoint::check`] compares the two and reports everything that
//! is missing, left over or of the wrong shape; only then are tensors read, as [`TensorView`]s over the mapped bytes.
//!
//! Nothing here executes anything from a file: pickles are read by a machine that can build dictionaries of tensors and
//! nothing else.

mod checkpoint;
mod directory;
mod error;
mod file;
mod inventory;
mod mapping;
mod names;
mod pickle;
mod replace;
mod view;
mod write;

pub use checkpoint::Checkpoint;
pub use error::{CheckpointError, ShapeMismatch};
pub use file::TensorFile;
pub use inventory::{Inventory, TensorSpec};
pub use names::NameMap;
pub use pickle::pytorch_pieces;
pub use replace::{WeightFile, WeightPiece};
pub use view::{StoredDtype, TensorView};
pub use write::{TensorHead, TensorOut, safetensors_front, safetensors_pieces, write_safetensors};

pub(crate) use names::llava_name;

use error::printable;
