//! Everything that a configuration names, opened and checked against each other.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use viral_model::adapter::{Adapter, LoraConfig, ResidualConfig};
use viral_model::config::{ImageProcessorConfig, LlavaConfig, VaeConfig};
use viral_model::graph::pixels::PixelNorm;
use viral_model::graph::teachers::{self, InputPath, InputSize, Teacher};
use viral_model::graph::{Interpolation, LeafSource, LinearMap, Origin};
use viral_model::weights::{Checkpoint, CheckpointError, Inventory, NameMap, TensorSpec};

use super::Fingerprints;
use super::errors;
use super::init::Take;
use super::open_data::{geometry, open_datasets, step_plan};
use super::prepare::Preparer;
use super::session::new_tensors;
use super::step_graph::trainable;
use super::stored::PIECE;
use super::validation;
use crate::config::{Config, Method, PixelNorm as PixelNormChoice, PositionFilter, TeacherSize};
use crate::data::{Bucket, Dataset, Geometry, Prepare, StepPlan};
use crate::error::{Error, Kind, Result};

/// The networks of a run as their configuration files describe them.
#[derive(Clone, Debug)]
pub struct Networks {
    /// The model that is trained.
    pub llava: LlavaConfig,
    /// The vision model that provides the targets, if there is one.
    pub teacher: Option<Arc<dyn Teacher>>,
    /// The autoencoder whose latents are reconstructed, if they are.
    pub vae: Option<VaeConfig>,
    /// How pictures become pixels.
    pub processor: ImageProcessorConfig,
}

/// A run's inputs.
pub struct Bundle {
    /// The configuration.
    pub config: Config,
    /// Shapes of the networks.
    pub networks: Networks,
    /// Samples, measured.
    pub dataset: Arc<Dataset>,
    /// Samples that the run is evaluated on and does not learn from, measured.
    pub validation: Option<Arc<Dataset>>,
    /// From records to tokens and pixels.
    pub prepare: Arc<dyn Prepare>,
    /// Extents of a sample.
    pub geometry: Geometry,
    model: Checkpoint,
    teacher: Option<Checkpoint>,
    vae: Option<Checkpoint>,
    adapter: Option<Adapter>,
}

impl Networks {
    /// Reads the configuration files of model, teacher and autoencoder.
    ///
    /// # Errors
    /// A file is missing, damaged or asks for something that is not implemented, or the run's settings do not fit the
    /// networks.
    pub fn open(config: &Config) -> Result<Self> {
        directory(&config.model.path, "model.path", "a Hugging Face LLaVA directory with config.json")?;
        let llava = LlavaConfig::from_parts(&config.model.path, config.model.vision.as_deref())?;
        let pictures = config.model.vision.as_ref().unwrap_or(&config.model.path);
        let processor = ImageProcessorConfig::from_dir(pictures).or_else(|error| {
            if has_processor(pictures) { Err(error) } else { Ok(ImageProcessorConfig::clip(llava.vision.image_size)) }
        })?;
        let teacher = if config.needs_teacher() {
            if !config.vra.teacher.is_file() {
                let expected = "a vision model's directory with config.json, or the weight file of a release";
                directory(&config.vra.teacher, "vra.teacher", expected)?;
            }
            Some(teachers::open(&config.vra.teacher)?)
        } else {
            None
        };
        let vae = if config.ross.enabled {
            directory(&config.ross.vae, "ross.vae", "an autoencoder's directory with config.json")?;
            Some(VaeConfig::from_dir(&config.ross.vae)?)
        } else {
            None
        };
        let networks = Self { llava, teacher, vae, processor };
        networks.check(config)?;
        Ok(networks)
    }

    fn check(&self, config: &Config) -> Result<()> {
        let layers = self.llava.text.layers;
        if let Some(&layer) = config.vra.layers.iter().find(|&&layer| config.vra.enabled && layer > layers) {
            return Err(errors::config(
                format!("vra.layers names layer {layer}"),
                format!("the language model has {layers} layers; 0 is its input and {layers} its normalised output"),
                format!("choose layers from 0 to {layers}, for example the middle one, {}", layers.div_ceil(2)),
            ));
        }
        let residual = config.residual.enabled.then_some(&config.residual.layers).into_iter().flatten();
        if let Some(layer) = residual.copied().find(|layer| !(1..=layers).contains(layer)) {
            return Err(errors::config(
                format!("residual.layers names layer {layer}"),
                format!("the language model has {layers} layers, counted from 1, behind which something can be added"),
                format!("choose layers from 1 to {layers}, for example the middle one, {}", layers.div_ceil(2)),
            ));
        }
        if let Some(layer) = config.ross.layer.filter(|&layer| config.ross.enabled && layer > layers) {
            return Err(errors::config(
                format!("ross.layer is {layer}"),
                format!("the language model has {layers} layers; 0 is its input and {layers} its normalised output"),
                format!("choose a layer from 0 to {layers}, or leave it out, which means {layers}"),
            ));
        }
        let key = match (&self.teacher, &self.vae) {
            (Some(_), _) => "vra.enabled",
            (None, Some(_)) => "ross.enabled",
            (None, None) => return Ok(()),
        };
        let Some(grid) = self.llava.visual_grid() else {
            return Err(errors::config(
                format!("{key} needs one visual token per patch"),
                "the model's vision_feature_select_strategy is `full`, which keeps the class token",
                format!("set {key} = false, or use a model with the strategy `default`"),
            ));
        };
        let Some(teacher) = &self.teacher else { return Ok(()) };
        if let Some(largest) = teacher.largest_grid().filter(|&largest| largest < grid) {
            return Err(errors::config(
                "the teacher's pictures are too small for the visual tokens",
                format!("it makes up to {largest} x {largest} features, and there are {grid} x {grid} visual tokens"),
                "set vra.teacher_size = \"own\", which resamples its features, or use another teacher",
            ));
        }
        Ok(())
    }

    /// How the vision tower's pixels are normalised.
    pub(crate) fn pixel_norm(&self) -> PixelNorm {
        self.processor.normalize.map_or(PixelNorm::NONE, |(mean, std)| PixelNorm { mean, std })
    }

    /// How the teacher's input is made out of the vision tower's pixels.
    pub(crate) fn input_path(&self, config: &Config) -> InputPath {
        InputPath {
            from: self.pixel_norm(),
            native: config.vra.pixel_norm == PixelNormChoice::Native,
            grid: self.llava.vision.grid(),
            size: match config.vra.teacher_size {
                TeacherSize::Grid => InputSize::Grid,
                TeacherSize::Own => InputSize::Own,
            },
            positions: match config.vra.position_filter {
                PositionFilter::Auto => None,
                PositionFilter::Bilinear => Some(Interpolation::Bilinear),
                PositionFilter::Bicubic => Some(Interpolation::Bicubic),
                PositionFilter::OffsetBicubic => Some(Interpolation::OffsetBicubic),
                PositionFilter::AntialiasedBicubic => Some(Interpolation::AntialiasedBicubic),
            },
        }
    }
}

impl Bundle {
    /// Opens everything.
    ///
    /// # Errors
    /// Whatever is missing, damaged or does not fit, by name.
    pub fn open(config: &Config) -> Result<Self> {
        let networks = Networks::open(config)?;
        let model = open_model(config)?;
        if config.train.method == Method::Full && !model.is_replaceable() {
            return Err(errors::config(
                "train.method = \"full\" needs a model in safetensors files of one folder",
                "the run writes those files anew, and this model lies in PyTorch files or in several places",
                "save the model with save_pretrained(…, safe_serialization=True), or train with method = \"lora\"",
            ));
        }
        model.check(&Inventory::llava(&networks.llava))?;
        let teacher = match &networks.teacher {
            Some(teacher) => {
                let checkpoint = Checkpoint::open(&config.vra.teacher, teacher.names())?;
                checkpoint.check(&Inventory::teacher(&**teacher))?;
                Some(checkpoint)
            }
            None => None,
        };
        let vae = match &networks.vae {
            Some(vae) => {
                let checkpoint = Checkpoint::open(&config.ross.vae, NameMap::Vae)?;
                checkpoint.check(&Inventory::vae(vae))?;
                Some(checkpoint)
            }
            None => None,
        };
        let adapter = match &config.model.adapter {
            Some(dir) => {
                let modules = new_tensors(config, &networks);
                let modules = modules.into_iter().map(|(name, _, ty)| TensorSpec::new(name, ty.shape));
                let adapter = Adapter::read(dir, &networks.llava, &modules.collect::<Vec<_>>())?;
                check_lora(config, dir, adapter.lora.as_ref())?;
                check_residual(config, dir, adapter.residual.as_ref())?;
                Some(adapter)
            }
            None => None,
        };
        let geometry = geometry(config, &networks);
        let prepare: Arc<dyn Prepare> = Arc::new(Preparer::open(config, &networks)?);
        let (dataset, validation) = open_datasets(config, &*prepare, geometry, config.data.on_bad_sample)?;
        Ok(Self {
            config: config.clone(),
            networks,
            dataset: Arc::new(dataset),
            validation: validation.map(Arc::new),
            prepare,
            geometry,
            model,
            teacher,
            vae,
            adapter,
        })
    }

    /// The order of the samples over the whole run.
    pub fn step_plan(&self) -> StepPlan {
        step_plan(&self.config, self.dataset.modality_lengths())
    }

    /// The shapes of the batches that the run is evaluated on.
    pub(crate) fn validation_buckets(&self) -> BTreeSet<Bucket> {
        self.validation.as_ref().map(|dataset| validation::shapes(dataset, self.config.train.batch)).unwrap_or_default()
    }

    /// The weights that the run starts from.
    pub(crate) fn model(&self) -> &Checkpoint {
        &self.model
    }

    /// The file of a stored tensor.
    fn checkpoint(&self, origin: Origin) -> &Checkpoint {
        let other = match origin {
            Origin::Teacher => self.teacher.as_ref(),
            Origin::Vae => self.vae.as_ref(),
            Origin::Model | Origin::Adapter => None,
        };
        other.unwrap_or(&self.model)
    }

    /// Gives elements of a stored tensor in pieces, so that a large one is never in memory as a whole.
    pub(crate) fn stored(&self, origin: Origin, name: &str, elements: Range<usize>, take: Take<'_>) -> Result<()> {
        let checkpoint = self.checkpoint(origin);
        let view = checkpoint.get(name)?;
        let mut piece = Vec::new();
        let mut at = elements.start;
        while at < elements.end {
            let values = view.elements(at..elements.end.min(at + PIECE), &mut piece)?;
            if values.is_empty() {
                return Err(Error::internal("a stored tensor is shorter than its graph", name));
            }
            take(values)?;
            at += values.len();
            checkpoint.release();
        }
        Ok(())
    }

    /// Content of a leaf that a file holds or that is computed from one.
    pub(crate) fn content(&self, source: &LeafSource) -> Result<Vec<f32>> {
        let load = |origin, name: &str| -> Result<(Vec<usize>, Vec<f32>), CheckpointError> {
            let checkpoint = self.checkpoint(origin);
            let view = checkpoint.get(name)?;
            let content = (view.shape().to_vec(), view.to_f32()?);
            checkpoint.release();
            Ok(content)
        };
        Ok(source.content(load)?)
    }

    /// Content of a tensor of the starting adapter, if there is one and it has the tensor.
    pub(crate) fn adapter_tensor(&self, name: &str) -> Option<Vec<f32>> {
        let parameter = self.adapter.as_ref()?.parameters.get(name)?;
        Some(parameter.values.clone())
    }

    /// Hashes of the inputs.
    ///
    /// # Errors
    /// The dataset can no longer be read.
    pub fn fingerprints(&self) -> Result<Fingerprints> {
        let mut fingerprints = Fingerprints::from([("model".to_owned(), self.model.fingerprint())]);
        fingerprints.insert("data".to_owned(), self.dataset.fingerprint()?);
        if let Some(validation) = &self.validation {
            fingerprints.insert("validation".to_owned(), validation.fingerprint()?);
        }
        for (name, part) in [("teacher", &self.teacher), ("vae", &self.vae)] {
            fingerprints.extend(part.as_ref().map(|part| (name.to_owned(), part.fingerprint())));
        }
        Ok(fingerprints)
    }
}

/// The model's tensors, with the parts that come from elsewhere in place of its own.
fn open_model(config: &Config) -> Result<Checkpoint> {
    let mut model = Checkpoint::open(&config.model.path, NameMap::Llava)?;
    if let Some(vision) = &config.model.vision {
        model.overlay(Checkpoint::open_under("model.vision_tower.", vision, NameMap::VisionTower)?);
    }
    if let Some(projector) = &config.model.projector {
        model.overlay(Checkpoint::open(projector, NameMap::Llava)?);
    }
    Ok(model)
}

/// The LoRA part that a run trains.
pub(crate) fn lora_config(config: &Config) -> LoraConfig {
    LoraConfig {
        rank: config.lora.r,
        alpha: config.lora.alpha,
        dropout: config.lora.dropout,
        targets: lora_targets(config),
        base_model: Some(config.model.path.display().to_string()),
    }
}

/// The configured targets in the order of a forward pass.
pub(crate) fn lora_targets(config: &Config) -> Vec<LinearMap> {
    let wanted = |map: &LinearMap| config.lora.targets.iter().any(|target| target.name() == map.name());
    LinearMap::ALL.into_iter().filter(wanted).collect()
}

/// How the run adds visual tokens again, for whoever uses what it has trained.
pub(crate) fn residual_config(config: &Config) -> Option<ResidualConfig> {
    let residual = &config.residual;
    residual.enabled.then(|| ResidualConfig {
        source: residual.source.name().into(),
        layers: residual.layers.clone(),
        positions: residual.positions.name().into(),
    })
}

/// A starting adapter that was trained with a residual goes on with the same one. Nothing is known of an adapter that says
/// nothing, such as PEFT's own.
fn check_residual(config: &Config, dir: &Path, stored: Option<&ResidualConfig>) -> Result<()> {
    let wanted = residual_config(config);
    let Some(stored) = stored.filter(|stored| wanted.as_ref() != Some(stored)) else { return Ok(()) };
    let says = wanted.map_or_else(|| "enabled = false".into(), |wanted| wanted.to_string());
    Err(Error {
        kind: Kind::Config,
        what: "the starting adapter was trained with another residual than the run has".into(),
        place: dir.join("residual_config.json").display().to_string(),
        why: format!("it has {stored}; section [residual] says {says}"),
        hint: "make section [residual] equal to the adapter's file, or leave model.adapter out".into(),
    })
}

/// A starting adapter must have the shape that the run trains.
fn check_lora(config: &Config, dir: &Path, stored: Option<&LoraConfig>) -> Result<()> {
    let Some(stored) = stored else { return Ok(()) };
    if !trainable(config).adapters {
        return Err(Error {
            kind: Kind::Config,
            what: "the starting adapter has LoRA matrices, which this run would leave out".into(),
            place: dir.join("adapter_config.json").display().to_string(),
            why: "train.stage and train.method train no LoRA adapters".into(),
            hint: "merge the adapter into the model first, or set train.method = \"lora\"".into(),
        });
    }
    let describe = |rank: usize, alpha: f64, targets: &[LinearMap]| {
        let names: Vec<&str> = targets.iter().map(|map| map.name()).collect();
        format!("r = {rank}, alpha = {alpha}, targets = {}", names.join(", "))
    };
    let mut targets = stored.targets.clone();
    targets.sort_unstable();
    let found = describe(stored.rank, stored.alpha, &targets);
    let wanted = describe(config.lora.r, config.lora.alpha, &lora_targets(config));
    if found == wanted {
        return Ok(());
    }
    Err(Error {
        kind: Kind::Config,
        what: "the starting adapter has another shape than the one to be trained".into(),
        place: dir.join("adapter_config.json").display().to_string(),
        why: format!("it has {found}; section [lora] says {wanted}"),
        hint: "make section [lora] equal to the adapter, or leave model.adapter out".into(),
    })
}

fn has_processor(dir: &Path) -> bool {
    ["preprocessor_config.json", "processor_config.json"].iter().any(|name| dir.join(name).exists())
}

fn directory(path: &Path, key: &str, expected: &str) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    Err(Error {
        kind: Kind::Model,
        what: format!("`{key}` names no directory"),
        place: path.display().to_string(),
        why: format!("expected {expected}"),
        hint: "check the path; relative paths start at the configuration file".into(),
    })
}
