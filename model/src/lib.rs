//! Networks as data: what a checkpoint directory says, and what its files hold.
//!
//! Reading order follows a training run's start-up:
//!
//! 1. [`config`] turns `config.json` and its neighbours into plain structs, with the library's defaults for missing
//!    keys and an error for every setting that is not implemented.
//! 2. [`weights`] maps the safetensors files, gives every tensor its canonical name whatever dialect it was saved in,
//!    and checks the whole inventory (names, shapes, element types) before a byte is used.
//! 3. [`adapter`] reads and writes the trained part: LoRA pairs as PEFT lays them out, the projector, and the
//!    alignment projector.
//! 4. [`text`] renders a conversation with its template and returns token ids and labels.
//! 5. [`image`] decodes and preprocesses pictures, bit for bit as Pillow and the reference image processors do.
//! 6. [`graph`] builds the networks, and says for each leaf where its content comes from.
//!
//! Invariants: parameter names equal the checkpoint's canonical tensor names; everything is deterministic; nothing
//! here touches the environment, the clock or a device; input from files never causes a panic, only a typed error that
//! says what, where, why and what to try.

pub mod adapter;
pub mod config;
pub mod graph;
pub mod image;
pub mod text;
pub mod weights;
