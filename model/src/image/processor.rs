//! From a picture to the vision tower's input tensor.

use super::{ImageError, Layout, Picture, Tiling, resize};
use crate::config::{ConfigError, ImageProcessorConfig, ImageSize};

use std::path::Path;

/// How a picture that is not square becomes square.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aspect {
    /// `pad`: a margin of the mean colour is added first, so that nothing is cut off.
    Pad,
    /// `square`: the processor's own way, which scales the short side and cuts the rest off.
    Square,
}

impl Aspect {
    /// The value of a configuration file.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "pad" => Some(Aspect::Pad),
            "square" => Some(Aspect::Square),
            _ => None,
        }
    }

    /// Name in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Aspect::Pad => "pad",
            Aspect::Square => "square",
        }
    }
}

/// A picture larger than this after scaling comes from an absurd aspect ratio, not from a camera.
const MAX_SCALED_PIXELS: usize = 1 << 28;

/// Preprocessing with everything that does not depend on the picture worked out.
#[derive(Clone, Debug)]
pub struct ImageProcessor {
    config: ImageProcessorConfig,
    pad: bool,
    side: usize,
    /// Value of each 8-bit level in each channel: rescaling and normalisation are functions of a byte.
    levels: [[f32; 256]; 3],
}

impl ImageProcessor {
    /// A processor for a tower that takes square pictures of `side` pixels.
    ///
    /// # Errors
    /// The settings do not yield pictures of that size.
    pub fn new(config: ImageProcessorConfig, aspect: Aspect, side: usize) -> Result<Self, ConfigError> {
        let pad = config.pad || aspect == Aspect::Pad;
        let before_padding = match (config.crop, config.resize) {
            (Some((height, width)), _) => Some((height, width)),
            (None, Some(ImageSize::Exact { height, width })) => Some((height, width)),
            (None, Some(ImageSize::ShortestEdge(edge) | ImageSize::LongestEdge(edge))) if pad => Some((edge, edge)),
            // The long side is known, the other is not longer.
            (None, Some(ImageSize::LongestEdge(edge))) if config.pad_to.is_some() => Some((edge, edge)),
            (None, _) => None,
        };
        let size = match (before_padding, config.pad_to) {
            (Some((height, width)), Some(target)) if height <= target.0 && width <= target.1 => Some(target),
            (_, Some(_)) => None,
            (size, None) => size,
        };
        if size != Some((side, side)) {
            let got = match size {
                Some((height, width)) => format!("{width} x {height} pixels"),
                None => "pictures of varying size".to_string(),
            };
            return Err(ConfigError::Inconsistent {
                path: "preprocessor_config.json".into(),
                problem: format!("it yields {got}, the vision tower's `image_size` is {side}"),
            });
        }
        let levels = [0, 1, 2].map(|channel| std::array::from_fn(|level| value_of(&config, channel, level)));
        Ok(Self { config, pad, side, levels })
    }

    /// Side of the output in pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    /// The tower's input for a picture, `(3, side, side)`; `path` only appears in messages.
    ///
    /// # Errors
    /// The picture is so elongated that scaling its short side would take an absurd amount of memory.
    pub fn pixels(&self, picture: &Picture, path: &Path) -> Result<Vec<f32>, ImageError> {
        let padded;
        let mut current = picture;
        if self.pad && picture.width() != picture.height() {
            padded = picture.padded_to_square(self.pad_colour());
            current = &padded;
        }
        let scaled;
        if let Some(size) = self.config.resize {
            let (width, height) = scaled_size(size, current.width(), current.height());
            if width.saturating_mul(height) > MAX_SCALED_PIXELS {
                let problem = format!(
                    "{} x {} pixels would be scaled to {width} x {height}; crop it, or use image_aspect = \"pad\"",
                    current.width(),
                    current.height()
                );
                return Err(ImageError::TooLarge { path: path.to_path_buf(), problem });
            }
            scaled = resize(current, width, height, self.config.resample);
            current = &scaled;
        }
        let cropped;
        if let Some((height, width)) = self.config.crop {
            cropped = current.centre_crop(width, height);
            current = &cropped;
        }
        // `new` has made sure that this is a picture of `side` by `side`, or one that zeros make as large.
        Ok(self.planes(current))
    }

    /// The tower's input for the tiles of a picture, `(tiles, 3, side, side)`: scaled and cut by LLaVA-NeXT's rules
    /// instead of the processor's, and normalised as the processor does.
    pub fn tiled_pixels(&self, picture: &Picture, tiling: &Tiling, layout: Layout) -> Vec<f32> {
        let tiles = tiling.tiles(picture, layout, self.config.resample);
        tiles.iter().flat_map(|tile| self.planes(tile)).collect()
    }

    /// Normalised channels, one after the other, with zeros at the bottom and the right up to the side.
    fn planes(&self, picture: &Picture) -> Vec<f32> {
        let mut planes = vec![0.0; 3 * self.side * self.side];
        let channels = self.levels.iter().enumerate();
        for (plane, (channel, levels)) in planes.chunks_mut(self.side * self.side).zip(channels) {
            let rows = picture.rgb().chunks(3 * picture.width());
            for (to, from) in plane.chunks_mut(self.side).zip(rows) {
                for (value, level) in to.iter_mut().zip(from.iter().skip(channel).step_by(3)) {
                    *value = levels[usize::from(*level)];
                }
            }
        }
        planes
    }

    /// The truncated mean colour, (122, 116, 104) for CLIP. Because it is truncated, the margin is slightly below zero
    /// after normalisation.
    pub fn pad_colour(&self) -> [u8; 3] {
        match self.config.normalize {
            Some((mean, _)) => mean.map(|x| (x * 255.0) as u8),
            None => [0; 3],
        }
    }
}

/// Size after the resize step, (width, height). The long side is truncated.
fn scaled_size(size: ImageSize, width: usize, height: usize) -> (usize, usize) {
    match size {
        ImageSize::Exact { height, width } => (width, height),
        ImageSize::ShortestEdge(edge) => {
            let (short, long) = (width.min(height), width.max(height));
            let long = (edge as f64 * long as f64 / short as f64) as usize;
            if width <= height { (edge, long) } else { (long, edge) }
        }
        ImageSize::LongestEdge(edge) => {
            let scale = edge as f64 / width.max(height) as f64;
            let scaled = |side: usize| ((side as f64 * scale + 0.5) as usize).clamp(1, edge);
            (scaled(width), scaled(height))
        }
    }
}

/// What a level becomes: the product is rounded once from f64, the rest is f32. Reference: transformers
/// `image_transforms.py`, `rescale` and `normalize`.
fn value_of(config: &ImageProcessorConfig, channel: usize, level: usize) -> f32 {
    let level = level as f64;
    let value = config.rescale.map_or(level, |factor| level * factor) as f32;
    match config.normalize {
        Some((mean, std)) => (value - mean[channel] as f32) / std[channel] as f32,
        None => value,
    }
}
