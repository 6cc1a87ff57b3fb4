//! The words that configuration keys accept. Adding one is one line here.

use super::setting::choices;

choices! {
    /// How the hidden states are compared with the target.
    Objective {
        /// Mean of the negative cosine per visual token, through a projector.
        Cosine = "cosine",
        /// Mean squared difference of the self-similarity matrices.
        Relation = "relation",
    }

    /// What the hidden states are aligned with.
    VraTarget {
        /// A second, frozen vision model.
        Teacher = "teacher",
        /// The features of the model's own vision encoder.
        Encoder = "encoder",
        /// The projected features of the model's own vision encoder.
        PostProjection = "post_projection",
    }

    /// How the factor of the alignment loss changes over the run.
    WeightSchedule {
        /// It stays.
        Constant = "constant",
        /// Along a straight line.
        Linear = "linear",
        /// Along half a cosine.
        Cosine = "cosine",
    }

    /// How the pictures are normalised before the teacher sees them.
    PixelNorm {
        /// With the teacher's own mean and deviation.
        Native = "native",
        /// As for the model's vision encoder.
        Inherit = "inherit",
    }

    /// Which picture the teacher sees.
    TeacherSize {
        /// One of the size that yields a feature for each visual token.
        Grid = "grid",
        /// One of the size that the teacher was made for; its features are resampled bilinearly to the visual tokens.
        Own = "own",
    }

    /// How a position table that was made for another size is resampled.
    PositionFilter {
        /// As the teacher's own code does.
        Auto = "auto",
        /// Two taps.
        Bilinear = "bilinear",
        /// Four taps, a = -0.75: the transformers library.
        Bicubic = "bicubic",
        /// The same with 0.1 added to the number of points: the code of DINOv2 and Depth Anything.
        OffsetBicubic = "offset_bicubic",
        /// a = -0.5 with antialiasing: timm, and DINOv2 with registers.
        AntialiasedBicubic = "antialiased_bicubic",
    }

    /// What is added again in the middle of the language model.
    ResidualSource {
        /// The visual tokens after the model's projector.
        PostProjection = "post_projection",
        /// The features of the vision encoder, through a projector of their own.
        PreProjection = "pre_projection",
    }

    /// Where the residual is added.
    ResidualPositions {
        /// At visual tokens only.
        Visual = "visual",
        /// At every token.
        All = "all",
    }

    /// Which samples take part in the reconstruction.
    RossMasking {
        /// All samples of micro-batches in which each has its whole picture, none of others: VIRAL's code.
        Every = "every",
        /// All samples of micro-batches in which one has; whoever has none reconstructs a blank one: ROSS's own code.
        Any = "any",
    }

    /// A linear map inside every layer of the language model.
    LoraTarget {
        /// Attention queries.
        QProj = "q_proj",
        /// Attention keys.
        KProj = "k_proj",
        /// Attention values.
        VProj = "v_proj",
        /// Attention output.
        OProj = "o_proj",
        /// Gate of the feed-forward network.
        GateProj = "gate_proj",
        /// First map of the feed-forward network.
        UpProj = "up_proj",
        /// Last map of the feed-forward network.
        DownProj = "down_proj",
    }

    /// How a conversation becomes text.
    Template {
        /// Vicuna 1.5: USER and ASSISTANT, each answer ends with `</s>`.
        VicunaV1 = "vicuna_v1",
        /// The same with the system text of LLaVA 1.
        LlavaV1 = "llava_v1",
        /// The same text as `llava_v1`, each answer ends with `<|im_end|>`.
        Qwen2 = "qwen_2",
        /// Picture and caption only, as in projector pretraining.
        Plain = "plain",
        /// The model's own chat template: `chat_template.jinja`, `chat_template.json` or that of `tokenizer_config.json`.
        Chat = "chat",
    }

    /// How a picture becomes square.
    ImageAspect {
        /// Pad with the mean colour.
        Pad = "pad",
        /// Resize the short side and cut out the centre.
        Square = "square",
    }

    /// The order in which samples are drawn.
    Order {
        /// As in the file.
        Sequential = "sequential",
        /// A new random order each epoch.
        Shuffled = "shuffled",
        /// Random, but each batch holds rows of one modality and similar length.
        GroupByModalityLength = "group_by_modality_length",
    }

    /// What happens to a sample that cannot be used.
    OnBadSample {
        /// Stop and name it.
        Fail = "fail",
        /// Leave it out, and report how many were left out.
        Skip = "skip",
    }

    /// The training stage, which decides what is trained.
    Stage {
        /// Only the projector.
        Pretrain = "pretrain",
        /// The language model, the projector and the alignment projector.
        Finetune = "finetune",
    }

    /// How the language model is trained.
    Method {
        /// Low-rank adapters on its linear maps.
        Lora = "lora",
        /// Every weight.
        Full = "full",
    }

    /// The learning rate over the run, after warm-up.
    Schedule {
        /// Falls to 0 along half a cosine.
        Cosine = "cosine",
        /// Stays.
        Constant = "constant",
    }

    /// How frozen weights and activations are stored; arithmetic is f32 or better.
    Precision {
        /// 32-bit floats.
        F32 = "f32",
        /// 16-bit floats with the range of f32.
        Bf16 = "bf16",
        /// 16-bit floats with more digits, up to 65504.
        F16 = "f16",
    }

    /// How AdamW's moments are stored.
    Moments {
        /// 32-bit floats.
        F32 = "f32",
        /// 8-bit floats with a scale for each 256: a quarter of the memory.
        F8 = "f8",
    }

    /// How the frozen matrices of the language model are stored.
    Base {
        /// As `train.precision` says.
        Auto = "auto",
        /// 32-bit floats.
        F32 = "f32",
        /// 16-bit floats with the range of f32.
        Bf16 = "bf16",
        /// 16-bit floats with more digits, up to 65504.
        F16 = "f16",
        /// Signed bytes with a scale for each 64: 8.5 bits an element.
        Q8 = "q8",
        /// The four-bit codes of QLoRA with a scale for each 64: 4.5 bits an element.
        Nf4 = "nf4",
    }

    /// Which activations are computed again in the backward pass instead of being kept.
    Remat {
        /// None.
        None = "none",
        /// All within a decoder layer.
        Block = "block",
        /// Those that cost little.
        Cheap = "cheap",
    }

    /// Which state of a run its results are made from.
    Kept {
        /// The one after the last step.
        Last = "last",
        /// The one with the lowest language-model loss on `data.validation`.
        Best = "best",
    }

    /// Where the choice of kernels comes from that are not equally fast on all devices.
    Tune {
        /// Rules.
        Off = "off",
        /// What was measured on this device, if somebody has asked for that before; else rules.
        Cached = "cached",
        /// A measurement before the run begins, which is kept for later ones.
        Full = "full",
    }

    /// The graphics interface by which a device is reached.
    Backend {
        /// The first that has a device.
        Auto = "auto",
        /// Vulkan (Linux, Windows, Android).
        Vulkan = "vulkan",
        /// Metal (macOS, iOS).
        Metal = "metal",
        /// Direct3D 12 (Windows).
        Dx12 = "dx12",
        /// OpenGL and OpenGL ES.
        Gl = "gl",
    }
}
