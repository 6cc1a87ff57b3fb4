//! Decoding to 8-bit RGB, as Pillow's `convert("RGB")` does.
//!
//! The format is taken from the contents, never from the file name. Transparency is dropped (the colour under it
//! stays), 16-bit colour keeps its high byte, 16-bit grey is clipped at 255, an animation gives its first frame, and
//! orientation tags are not applied.

use std::fs::File;
use std::io::{Cursor, Read as _};
use std::path::Path;

use image::error::LimitErrorKind;
use image::{DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, Limits};

use super::{ImageError, Picture};

/// Bounds that are checked before a pixel is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Largest width and height.
    pub max_side: u32,
    /// Largest number of pixels.
    pub max_pixels: u64,
    /// Largest file.
    pub max_bytes: u64,
}

impl Default for DecodeLimits {
    /// Pillow warns of a decompression bomb above this number of pixels.
    fn default() -> Self {
        Self { max_side: 1 << 15, max_pixels: 89_478_485, max_bytes: 256 << 20 }
    }
}

/// Decodes a file.
///
/// # Errors
/// The file is missing, of no known format, broken, or larger than the limits.
pub fn decode_file(path: &Path, limits: &DecodeLimits) -> Result<Picture, ImageError> {
    let io = |source| ImageError::Io { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(io(std::io::Error::other("not a regular file")));
    }
    let too_large = |size| ImageError::TooLarge {
        path: path.to_path_buf(),
        problem: format!("{size} bytes; at most {}", limits.max_bytes),
    };
    if metadata.len() > limits.max_bytes {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.take(limits.max_bytes + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limits.max_bytes {
        return Err(too_large(bytes.len() as u64));
    }
    decode(&bytes, path, limits)
}

/// Decodes the contents of a file; `path` only appears in messages.
///
/// # Errors
/// As [`decode_file`].
pub fn decode(bytes: &[u8], path: &Path, limits: &DecodeLimits) -> Result<Picture, ImageError> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|source| ImageError::Io { path: path.to_path_buf(), source })?;
    let Some(format) = reader.format() else {
        return Err(ImageError::Unknown { path: path.to_path_buf() });
    };
    reader.limits(allocation_limits(limits));
    let decoder = reader.into_decoder().map_err(|error| broken(error, path))?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > limits.max_side || u64::from(width) * u64::from(height) > limits.max_pixels {
        let problem =
            format!("{width} x {height} pixels; at most {} a side and {} in all", limits.max_side, limits.max_pixels);
        return Err(ImageError::TooLarge { path: path.to_path_buf(), problem });
    }
    let decoded = DynamicImage::from_decoder(decoder).map_err(|error| broken(error, path))?;
    let broken = |problem: &str| ImageError::Broken { path: path.to_path_buf(), problem: problem.into() };
    // The JPEG decoder fills what is missing with grey instead of reporting it.
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        return Err(broken("it ends before its end marker"));
    }
    Picture::new(width as usize, height as usize, to_rgb(decoded, is_plain_grey_png(bytes)))
        .ok_or_else(|| broken("it has no pixels"))
}

/// Decoders may use as much memory as the largest picture needs with 16-bit channels, and a working copy.
fn allocation_limits(limits: &DecodeLimits) -> Limits {
    let mut allowed = Limits::no_limits();
    allowed.max_alloc = Some(limits.max_pixels.saturating_mul(2 * 8).saturating_add(64 << 20));
    allowed
}

/// Whether this is a PNG of grey levels without an alpha channel. Such a file may name one level that is transparent;
/// it is then decoded with an alpha channel, and only its header still tells.
fn is_plain_grey_png(bytes: &[u8]) -> bool {
    const COLOUR_TYPE_AT: usize = 25;
    bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.get(COLOUR_TYPE_AT) == Some(&0)
}

/// Whether an end marker follows the first scan. Segments before it are skipped by their length, because a thumbnail in
/// one of them has an end marker of its own.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xDA;
    let mut rest = bytes.get(2..).unwrap_or_default();
    loop {
        match rest {
            [0xFF, START_OF_SCAN, scan @ ..] => return scan.windows(2).any(|pair| pair == [0xFF, 0xD9]),
            // Fill bytes, and markers without a segment.
            [0xFF, 0xFF, ..] => rest = &rest[1..],
            [0xFF, 0x01 | 0xD0..=0xD8, tail @ ..] => rest = tail,
            [0xFF, _, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                rest = rest.get(2 + length.max(2)..).unwrap_or_default();
            }
            // Bytes between segments, which decoders skip.
            [_, tail @ ..] => rest = tail,
            [] => return false,
        }
    }
}

fn to_rgb(decoded: DynamicImage, plain_grey: bool) -> Vec<u8> {
    let from_grey16 = |v: u16| if plain_grey { v.min(255) as u8 } else { high_byte(v) };
    match decoded {
        DynamicImage::ImageRgb8(pixels) => pixels.into_raw(),
        DynamicImage::ImageLuma8(pixels) => pixels.iter().flat_map(|&v| [v; 3]).collect(),
        DynamicImage::ImageLumaA8(pixels) => {
            pixels.as_raw().as_chunks::<2>().0.iter().flat_map(|p| [p[0]; 3]).collect()
        }
        DynamicImage::ImageRgba8(pixels) => {
            pixels.as_raw().as_chunks::<4>().0.iter().flat_map(|p| [p[0], p[1], p[2]]).collect()
        }
        DynamicImage::ImageLuma16(pixels) => pixels.iter().flat_map(|&v| [from_grey16(v); 3]).collect(),
        DynamicImage::ImageLumaA16(pixels) => {
            pixels.as_raw().as_chunks::<2>().0.iter().flat_map(|p| [from_grey16(p[0]); 3]).collect()
        }
        DynamicImage::ImageRgb16(pixels) => pixels.iter().map(|&v| high_byte(v)).collect(),
        DynamicImage::ImageRgba16(pixels) => {
            pixels.as_raw().as_chunks::<4>().0.iter().flat_map(|p| [p[0], p[1], p[2]].map(high_byte)).collect()
        }
        // Float pictures: none of the enabled formats yields them.
        other => other.into_rgb8().into_raw(),
    }
}

fn high_byte(value: u16) -> u8 {
    (value >> 8) as u8
}

fn broken(error: image::ImageError, path: &Path) -> ImageError {
    let path = path.to_path_buf();
    match error {
        image::ImageError::IoError(source) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
            ImageError::Io { path, source }
        }
        image::ImageError::Limits(limit) => match limit.kind() {
            LimitErrorKind::DimensionError | LimitErrorKind::InsufficientMemory => {
                ImageError::TooLarge { path, problem: limit.to_string() }
            }
            _ => ImageError::Broken { path, problem: limit.to_string() },
        },
        other => ImageError::Broken { path, problem: other.to_string() },
    }
}
