//! Image preprocessing settings.

use std::path::Path;

use serde_json::Value;

use super::{ConfigError, Document, Section};

/// Channel means of the CLIP processors.
pub const OPENAI_CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
/// Channel standard deviations of the CLIP processors.
pub const OPENAI_CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];
/// Channel means of ImageNet, the native normalisation of DINOv2.
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Channel standard deviations of ImageNet.
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// Channel means and standard deviations of SigLIP's processors.
const HALF: [f64; 3] = [0.5; 3];

/// Resampling filter of an 8-bit resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Triangle filter (Pillow's number 2).
    Bilinear,
    /// Cubic filter with a = -0.5 (Pillow's number 3).
    Bicubic,
}

/// Target of the resize step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageSize {
    /// The short side becomes this many pixels, the long side follows.
    ShortestEdge(usize),
    /// The long side becomes this many pixels, the short side follows, rounded.
    LongestEdge(usize),
    /// Both sides are given; the aspect ratio is not kept.
    Exact {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
}

/// What `preprocessor_config.json` (or the `image_processor` part of `processor_config.json`) says.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageProcessorConfig {
    /// Target of the resize step, if there is one.
    pub resize: Option<ImageSize>,
    /// Filter of the resize step.
    pub resample: Filter,
    /// `(height, width)` of the centre crop, if there is one.
    pub crop: Option<(usize, usize)>,
    /// Factor on the 8-bit values, if they are rescaled.
    pub rescale: Option<f64>,
    /// Mean and standard deviation per channel, if pixels are normalised.
    pub normalize: Option<([f64; 3], [f64; 3])>,
    /// `(height, width)` that is reached by zeros at the bottom and the right after everything else, if it is.
    pub pad_to: Option<(usize, usize)>,
    /// Whether the processor itself pads to a square first (the library's LLaVA processor can).
    pub pad: bool,
}

impl ImageProcessorConfig {
    /// The CLIP processor for square pictures of `side` pixels.
    pub fn clip(side: usize) -> Self {
        Self {
            resize: Some(ImageSize::ShortestEdge(side)),
            resample: Filter::Bicubic,
            crop: Some((side, side)),
            rescale: Some(1.0 / 255.0),
            normalize: Some((OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)),
            pad_to: None,
            pad: false,
        }
    }

    /// Reads the settings of a model directory. As in the library, an `image_processor` section of
    /// `processor_config.json` goes before `preprocessor_config.json`.
    ///
    /// # Errors
    /// Neither file holds the settings, or a setting is wrong or not implemented.
    pub fn from_dir(dir: &Path) -> Result<Self, ConfigError> {
        let nested = dir.join("processor_config.json");
        if nested.is_file() {
            let document = Document::read(&nested)?;
            if let Some(section) = document.root().section("image_processor")? {
                return Self::from_section(&section);
            }
        }
        let document = Document::read(&dir.join("preprocessor_config.json"))?;
        Self::from_section(&document.root())
    }

    /// Reads the text of a `preprocessor_config.json`; `path` only appears in messages.
    ///
    /// # Errors
    /// A setting is wrong or not implemented.
    pub fn from_json(path: &Path, json: &[u8]) -> Result<Self, ConfigError> {
        let document = Document::parse(path, json)?;
        Self::from_section(&document.root())
    }

    fn from_section(s: &Section<'_>) -> Result<Self, ConfigError> {
        let class = Class::read(s)?;
        let resample = match s.integer("resample", class.resample())? {
            2 => Filter::Bilinear,
            3 => Filter::Bicubic,
            _ => return Err(s.unsupported("resample", "2 (bilinear), 3 (bicubic)")),
        };
        let resize = match s.flag("do_resize", true)? {
            true => Some(resize_target(s, class)?),
            false => None,
        };
        let crop = match s.flag("do_center_crop", class.crops())? {
            true => Some(exact_size(s, "crop_size", 224)?),
            false => None,
        };
        let rescale = match s.flag("do_rescale", true)? {
            true => Some(s.number("rescale_factor", 1.0 / 255.0)?),
            false => None,
        };
        let (mean, std) = class.normalization();
        let normalize = match s.flag("do_normalize", true)? {
            true => Some((s.channels("image_mean", mean)?, s.channels("image_std", std)?)),
            false => None,
        };
        if normalize.is_some_and(|(_, std)| std.contains(&0.0)) {
            return Err(s.wrong("image_std", "numbers other than zero"));
        }
        let pads = s.flag("do_pad", class == Class::Sam)?;
        if pads && !matches!(class, Class::Llava | Class::Next | Class::Sam) {
            return Err(s.unsupported("do_pad", "false, or true for LlavaImageProcessor and SamImageProcessor"));
        }
        let pad_to = match pads && class == Class::Sam {
            true => Some(exact_size(s, "pad_size", 1024)?),
            false => None,
        };
        Ok(Self { resize, resample, crop, rescale, normalize, pad_to, pad: pads && class == Class::Llava })
    }
}

/// The library's processors. Their steps are the same; they differ in which are done and in their defaults.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// CLIP's, and DINOv2's, which has the same steps.
    Clip,
    /// LLaVA's own, which can pad to a square first.
    Llava,
    /// LLaVA-NeXT's: CLIP's for each tile. Its `do_pad` makes numbers of tiles equal, which is no matter of pixels.
    Next,
    /// That of SigLIP, and of SigLIP 2 at a fixed resolution: both sides scaled, nothing cut off.
    Siglip,
    /// SAM's: the long side scaled, the rest filled with zeros.
    Sam,
}

impl Class {
    /// Files without a class are CLIP's.
    fn read(s: &Section<'_>) -> Result<Self, ConfigError> {
        for key in ["image_processor_type", "feature_extractor_type"] {
            let Some(name) = s.text(key)? else { continue };
            let base = name.strip_suffix("Fast").or_else(|| name.strip_suffix("Pil")).unwrap_or(name);
            return match base {
                "CLIPImageProcessor" | "CLIPFeatureExtractor" | "BitImageProcessor" => Ok(Self::Clip),
                "LlavaImageProcessor" => Ok(Self::Llava),
                "LlavaNextImageProcessor" => Ok(Self::Next),
                "SiglipImageProcessor" => Ok(Self::Siglip),
                "SamImageProcessor" => Ok(Self::Sam),
                _ => {
                    let others = "SiglipImageProcessor, SamImageProcessor, BitImageProcessor";
                    let llava = "LlavaImageProcessor, LlavaNextImageProcessor";
                    Err(s.unsupported(key, &format!("CLIPImageProcessor, {llava}, {others}")))
                }
            };
        }
        Ok(Self::Clip)
    }

    fn resample(self) -> i64 {
        if self == Self::Sam { 2 } else { 3 }
    }

    fn crops(self) -> bool {
        matches!(self, Self::Clip | Self::Llava | Self::Next)
    }

    fn normalization(self) -> ([f64; 3], [f64; 3]) {
        match self {
            Self::Clip | Self::Llava | Self::Next => (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
            Self::Siglip => (HALF, HALF),
            Self::Sam => (IMAGENET_MEAN, IMAGENET_STD),
        }
    }

    fn size(self) -> ImageSize {
        match self {
            Self::Clip | Self::Llava => ImageSize::ShortestEdge(224),
            Self::Next => ImageSize::ShortestEdge(336),
            Self::Siglip => ImageSize::Exact { height: 224, width: 224 },
            Self::Sam => ImageSize::LongestEdge(1024),
        }
    }
}

fn resize_target(s: &Section<'_>, class: Class) -> Result<ImageSize, ConfigError> {
    const KEY: &str = "size";
    match s.value(KEY) {
        None => Ok(class.size()),
        Some(Value::Object(map)) => {
            let size = s.section(KEY)?.unwrap_or_else(|| s.clone());
            if map.contains_key("max_height") || (map.contains_key("longest_edge") && class != Class::Sam) {
                return Err(s.unsupported(KEY, "shortest_edge, or height and width, or longest_edge of SAM"));
            }
            match (size.optional_size("shortest_edge")?, size.optional_size("longest_edge")?) {
                (Some(side), _) => Ok(ImageSize::ShortestEdge(side)),
                (None, Some(side)) => Ok(ImageSize::LongestEdge(side)),
                (None, None) => exact_size(s, KEY, 224).map(|(height, width)| ImageSize::Exact { height, width }),
            }
        }
        // Old files hold a number, which means the short side.
        Some(_) => Ok(ImageSize::ShortestEdge(s.size(KEY, 224)?)),
    }
}

/// `(height, width)`, written as an object or as one number.
fn exact_size(s: &Section<'_>, key: &str, default: usize) -> Result<(usize, usize), ConfigError> {
    if !matches!(s.value(key), Some(Value::Object(_))) {
        let side = s.size(key, default)?;
        return Ok((side, side));
    }
    let size = s.section(key)?;
    let sides = match &size {
        Some(size) => (size.optional_size("height")?, size.optional_size("width")?),
        None => (None, None),
    };
    match sides {
        (Some(height), Some(width)) => Ok((height, width)),
        _ => Err(s.wrong(key, "an object with height and width")),
    }
}
