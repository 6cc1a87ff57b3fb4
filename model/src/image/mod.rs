//! Pictures: decoding, resizing, and the preprocessing of the vision tower.
//!
//! Everything here is integer arithmetic or a fixed sequence of float operations that reproduces Pillow and the
//! library's NumPy image processors bit for bit. JPEG and lossy WebP are the exception: decoders differ by a few levels.

mod decode;
mod error;
mod picture;
mod processor;
mod resize;
mod tiles;

pub use decode::{DecodeLimits, decode, decode_file};
pub use error::ImageError;
pub use picture::Picture;
pub use processor::{Aspect, ImageProcessor};
pub use resize::resize;
pub use tiles::{Layout, TiledToken, Tiling};
