//! Every configuration key, once: its name, type, default, limit and help.
//!
//! The structs, their defaults, [`SECTIONS`], `config init`, `config show`, unknown-key suggestions and the table in
//! the documentation derive from this list. Adding a key is one entry here.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::recipe::Recipe;
use super::setting::{HeldOut, Kind, Limit, Setting};
use super::values::*;

/// A table of the configuration file.
#[derive(Debug)]
pub struct Section {
    /// Its name in brackets.
    pub name: &'static str,
    /// What it is about.
    pub help: &'static str,
    /// Its keys, in the order of the documentation.
    pub keys: &'static [Key],
}

/// A key of the configuration file.
#[derive(Debug)]
pub struct Key {
    /// The table it stands in.
    pub section: &'static str,
    /// Its name within the table.
    pub name: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    /// The shape of its value.
    pub kind: Kind,
    /// Whether it may stay unset.
    pub optional: bool,
    /// Condition on its numbers.
    pub limit: Limit,
    /// Whether a run that is resumed may have another value.
    pub resume: Resume,
}

/// Whether a key may have another value when a run is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Only if the user allows it by name: the run would not be the one that was begun.
    Fixed,
    /// Yes: it changes no number of the run.
    Free,
    /// The path may differ as long as what it leads to is the same.
    SameContent,
}

impl Key {
    /// `section.name`, by which the key is called everywhere outside its table.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }
}

/// Every key of every section.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (self.section, self.name) == (other.section, other.name)
    }
}

macro_rules! sections {
    ($(
        #[doc = $section_help:literal]
        $section:ident: $Section:ident {
            $( #[doc = $help:literal] $key:ident: $ty:ty = $default:expr $(, $limit:ident)? $(=> $resume:ident)?; )+
        }
    )+) => {
        /// The whole configuration, resolved and checked.
        #[derive(Clone, Debug, Default, PartialEq, Serialize)]
        pub struct Config { $( #[doc = $section_help] pub $section: $Section, )+ }

        $(
            #[doc = concat!("Section `[", stringify!($section), "]`: ", $section_help)]
            #[derive(Clone, Debug, PartialEq, Serialize)]
            pub struct $Section { $( #[doc = $help] pub $key: $ty, )+ }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $key: $default, )+ }
                }
            }
        )+

        /// Every section, in the order of the documentation.
        pub static SECTIONS: &[Section] = &[$( Section {
            name: stringify!($section),
            help: $section_help.trim_ascii(),
            keys: &[$( Key {
                section: stringify!($section),
                name: stringify!($key),
                help: $help.trim_ascii(),
                kind: <$ty as Setting>::KIND,
                optional: <$ty as Setting>::OPTIONAL,
                limit: sections!(@limit $($limit)?),
                resume: sections!(@resume $($resume)?),
            }, )+],
        }, )+];

        impl Config {
            /// Sets one key from a TOML value. A key that does not exist changes nothing.
            pub(super) fn set(&mut self, key: &Key, text: &str) -> Result<(), toml::de::Error> {
                match (key.section, key.name) {
                    $( $( (stringify!($section), stringify!($key)) => {
                        self.$section.$key = Setting::parse(text)?;
                    } )+ )+
                    _ => {}
                }
                Ok(())
            }

            /// The value of one key, or nothing where it is unset.
            pub fn get(&self, key: &Key) -> Option<toml::Value> {
                match (key.section, key.name) {
                    $( $( (stringify!($section), stringify!($key)) => {
                        toml::Value::try_from(&self.$section.$key).ok()
                    } )+ )+
                    _ => None,
                }
            }

            /// Makes every relative path relative to `base`.
            pub(super) fn rebase(&mut self, base: &Path) {
                $( $( self.$section.$key.rebase(base); )+ )+
            }
        }
    };
    (@limit) => { Limit::NONE };
    (@limit $limit:ident) => { Limit::$limit };
    (@resume) => { Resume::Fixed };
    (@resume $resume:ident) => { Resume::$resume };
}

sections! {
    /// A row of the paper's tables to repeat. What else sets a key goes before the row.
    recipe: RecipeConfig {
        /// The row, which sets the keys that it differs in from the defaults; `viral-wgpu config recipes` shows them.
        row: Option<Recipe> = None => Free;
        /// Folder in which the row's vision model lies by its published name, such as dinov2-base.
        models: PathBuf = ".".into() => Free;
    }

    /// The model to start from.
    model: ModelConfig {
        /// Model directory: Hugging Face or original LLaVA, or a language model whose other parts are named below.
        path: PathBuf = "llava".into() => SameContent;
        /// Directory of the vision tower, where the model's own has none. Its image processor is used.
        vision: Option<PathBuf> = None;
        /// Weight file of the multi-modal projector, such as a stage-1 mm_projector.bin, in place of the model's own.
        projector: Option<PathBuf> = None;
        /// Storage of the frozen matrices of the language model: the memory that a large model takes.
        base: Base = Base::Auto;
        /// Adapter directory to continue from: a PEFT adapter and its companion files.
        adapter: Option<PathBuf> = None;
    }

    /// Alignment of visual representations.
    vra: VraConfig {
        /// Whether the alignment loss is added to the language-model loss.
        enabled: bool = true;
        /// Directory of the vision model that provides the targets; of a research release also its weight file.
        teacher: PathBuf = "dinov2".into() => SameContent;
        /// How the hidden states are compared with the targets.
        objective: Objective = Objective::Cosine;
        /// What provides the targets.
        target: VraTarget = VraTarget::Teacher;
        /// Hidden states that are aligned: 0 is the input of the language model, k the output of its k-th layer.
        layers: Vec<usize> = vec![16];
        /// Factor of the alignment loss, at the first step.
        weight: f64 = 0.5, NOT_NEGATIVE;
        /// How the factor goes from weight to weight_end over the run.
        weight_schedule: WeightSchedule = WeightSchedule::Constant;
        /// Factor of the alignment loss at the last step, where it is not constant.
        weight_end: f64 = 0.0, NOT_NEGATIVE;
        /// Width of the alignment projector's two inner layers.
        projector_dim: usize = 2048, AT_LEAST_ONE;
        /// One alignment projector per aligned layer instead of one for all.
        multiple_projectors: bool = false;
        /// Compare through the alignment projector; only the relation objective can do without.
        use_projector: bool = true;
        /// Keep the alignment projector as it was initialised.
        projector_frozen: bool = false;
        /// Align only pictures whose path in the dataset begins with `coco`.
        only_coco: bool = false;
        /// How pictures are normalised for the teacher.
        pixel_norm: PixelNorm = PixelNorm::Native;
        /// Which picture the teacher sees.
        teacher_size: TeacherSize = TeacherSize::Grid;
        /// How the teacher's position table is resampled where it was made for another size.
        position_filter: PositionFilter = PositionFilter::Auto;
    }

    /// Re-injection of the visual tokens, an alternative to alignment.
    residual: ResidualConfig {
        /// Whether visual tokens are added again inside the language model.
        enabled: bool = false;
        /// What is added.
        source: ResidualSource = ResidualSource::PostProjection;
        /// Layers after which it is added.
        layers: Vec<usize> = vec![16];
        /// Where it is added.
        positions: ResidualPositions = ResidualPositions::Visual;
    }

    /// Reconstruction of the pictures out of the visual tokens, the objective that the paper compares with (ROSS).
    ross: RossConfig {
        /// Whether the reconstruction loss is added to the language-model loss.
        enabled: bool = false;
        /// Directory of the variational autoencoder whose latents are reconstructed, for example FLUX.1's `vae`.
        vae: PathBuf = "flux-vae".into() => SameContent;
        /// Factor of the reconstruction loss.
        weight: f64 = 1.0, NOT_NEGATIVE;
        /// Hidden state that pictures are reconstructed from, counted as in vra.layers; the last one if unset.
        layer: Option<usize> = None;
        /// Which samples take part.
        masking: RossMasking = RossMasking::Every;
        /// Noisy copies of each picture that the denoiser sees in a step.
        repeats: usize = 4, AT_LEAST_ONE;
        /// Width of the denoiser.
        width: usize = 1024, AT_LEAST_ONE;
        /// Blocks of the denoiser.
        depth: usize = 3, AT_LEAST_ONE;
        /// Attention heads of the denoiser.
        heads: usize = 16, AT_LEAST_ONE;
    }

    /// Low-rank adapters of the language model.
    lora: LoraConfig {
        /// Rank.
        r: usize = 128, AT_LEAST_ONE;
        /// Scale; the adapter's output is multiplied by alpha / r.
        alpha: f64 = 256.0, POSITIVE;
        /// Share of the adapter's inputs that are set to zero.
        dropout: f64 = 0.05, BELOW_ONE;
        /// Linear maps that get an adapter, inside the language model only.
        targets: Vec<LoraTarget> = LoraTarget::ALL.to_vec();
    }

    /// The dataset.
    data: DataConfig {
        /// Conversations: a LLaVA JSON array, or one JSON object a line.
        train: PathBuf = "train.json".into() => SameContent;
        /// What the run is evaluated on and does not learn from: a file like the training file, or a share of that one.
        validation: Option<HeldOut> = None, PROPER_SHARE;
        /// Folder that the records' image paths start from.
        images: PathBuf = "images".into();
        /// How a conversation becomes text.
        template: Template = Template::VicunaV1;
        /// With the qwen_2 template, supervise the end token of a conversation's last answer too.
        qwen_supervise_final_eos: bool = false;
        /// How a picture becomes square. A LLaVA-NeXT stretches it, and sees it in tiles besides.
        image_aspect: ImageAspect = ImageAspect::Pad;
        /// Order in which samples are drawn.
        order: Order = Order::GroupByModalityLength;
        /// What happens to a sample that cannot be used.
        on_bad_sample: OnBadSample = OnBadSample::Fail;
    }

    /// The training run.
    train: TrainConfig {
        /// What is trained: the projector alone, or everything the method names.
        stage: Stage = Stage::Finetune;
        /// How the language model is trained.
        method: Method = Method::Lora;
        /// Host memory in MiB for what frozen vision networks made of pictures, for later epochs; 0 keeps nothing.
        feature_cache: usize = 2048 => Free;
        /// Folder for the same on disk, where later runs find it that have the same vision networks, device and driver.
        feature_dir: Option<PathBuf> = None => Free;
        /// MiB that the folder may grow to.
        feature_dir_limit: usize = 16384 => Free;
        /// Passes over the dataset.
        epochs: usize = 1;
        /// Optimiser steps; above 0 it overrides epochs.
        steps: usize = 0;
        /// Samples of one micro-batch.
        batch: usize = 16, AT_LEAST_ONE;
        /// Micro-batches of one optimiser step.
        accumulation: usize = 1, AT_LEAST_ONE;
        /// Peak learning rate of everything but the model's projector.
        lr: f64 = 2e-4, NOT_NEGATIVE;
        /// Peak learning rate of the model's projector.
        projector_lr: f64 = 2e-5, NOT_NEGATIVE;
        /// Learning rate after warm-up.
        schedule: Schedule = Schedule::Cosine;
        /// Share of the steps over which the learning rate rises from 0.
        warmup_ratio: f64 = 0.03, FRACTION;
        /// Decoupled weight decay; biases and norms are exempt.
        weight_decay: f64 = 0.0, NOT_NEGATIVE;
        /// Decay rates of the two moments of AdamW.
        betas: [f64; 2] = [0.9, 0.999], BELOW_ONE;
        /// Added to the root of the second moment.
        eps: f64 = 1e-8, POSITIVE;
        /// Storage of AdamW's moments.
        moments: Moments = Moments::F32;
        /// Gradients are scaled down to this L2 norm over all trainable tensors; 0 is off.
        max_grad_norm: f64 = 0.0, NOT_NEGATIVE;
        /// Tokens of a sample, visual tokens included; longer samples are cut.
        max_length: usize = 2048, AT_LEAST_ONE;
        /// Storage of frozen weights and activations; arithmetic is f32 or better.
        precision: Precision = Precision::Bf16;
        /// Activations that are computed again in the backward pass to save memory.
        remat: Remat = Remat::Block;
        /// Start of every random stream.
        seed: u64 = 42;
        /// Steps between checkpoints; 0 saves none but the one of an interrupted run.
        save_every: usize = 1000 => Free;
        /// Checkpoints that are kept, the newest ones and the best one; 0 keeps all.
        keep_checkpoints: usize = 3 => Free;
        /// Steps between evaluations of data.validation, besides the one after the last step; each new best is saved.
        validate_every: usize = 1000 => Free;
    }

    /// The device that trains.
    device: DeviceConfig {
        /// Graphics interface.
        backend: Backend = Backend::Auto => Free;
        /// Number, or part of the name, of an adapter that `viral-wgpu devices` lists.
        adapter: Option<String> = None => Free;
        /// What chooses kernels that are not equally fast on all devices; a resumed run keeps those it began with.
        tune: Tune = Tune::Cached => Free;
        /// Seconds that measuring kernels may take; what is not measured by then is left to rules.
        tune_seconds: usize = 120, AT_LEAST_ONE => Free;
    }

    /// What the run leaves behind.
    output: OutputConfig {
        /// Run folder.
        dir: PathBuf = "runs/name".into() => Free;
        /// Which state the adapter, and the model of a full run, are written from.
        adapter: Kept = Kept::Last => Free;
    }
}
