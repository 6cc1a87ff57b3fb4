//! What the host writes before a micro-batch: names, types and meaning of the inputs, in one place.

use viral_compiler::types::{DType, TensorType};
use viral_compiler::{Graph, Value};

use crate::config::LlavaConfig;

/// Extents of a micro-batch; one graph serves all micro-batches that fit into them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchShape {
    /// B, sequences.
    pub batch: usize,
    /// T, positions of a sequence.
    pub tokens: usize,
    /// U, positions at the end of each sequence among which all targets are; the last layer is needed nowhere else. At most T.
    pub tail: usize,
    /// I, pictures of all sequences together.
    pub images: usize,
    /// J, tiles that a LLaVA-NeXT sees beside the whole pictures; 0 for other models.
    pub tiles: usize,
    /// S, supervised positions of all sequences together.
    pub targets: usize,
    /// H and W, sides of a picture in pixels.
    pub image_size: usize,
    /// N, visual tokens of a picture.
    pub visual_tokens: usize,
}

/// An input of a micro-batch. Of `B·T` positions one is addressed as `row · T + position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BatchInput {
    /// Normalised pixels of the whole pictures and, behind them, of their tiles: `f32[I+J,3,H,W]`.
    Pixels,
    /// Text token at each position, [`NO_ROW`](super::llava::NO_ROW) at visual tokens and padding; `u32[B·T]`.
    TokenIds,
    /// Visual token at each position: `image · N + patch`, `(I + tile) · N + patch`, or
    /// [`NEWLINE`](super::llava::NEWLINE); `NO_ROW` elsewhere. `u32[B·T]`.
    VisualIndex,
    /// Position whose logits predict a supervised token, out of the last U of each sequence: `row · U + position - (T - U)`;
    /// `NO_ROW` in unused slots. `u32[S]`.
    TargetPositions,
    /// The supervised token; `u32[S]`.
    TargetIds,
    /// Weight of its loss: 1 over the number of supervised tokens, 0 in unused slots; `f32[S]`.
    TargetWeights,
    /// Position of each visual token of a whole picture that was not cut, `NO_ROW` for the others; `u32[I·N]`.
    VraPositions,
    /// Weight of its loss: 1 over N and the number of pictures that take part, 0 for the others; `f32[I·N]`.
    VraWeights,
    /// Weight of the reconstruction of each sample's picture; they add up to 1, or to 0 if none takes part; `f32[B]`.
    RossWeights,
    /// Picture of each sample, I where it has none; `u32[B]`.
    RossPictures,
    /// Position of each visual token of each sample whose picture was not cut, `NO_ROW` for the others; `u32[B·N]`.
    RossPositions,
    /// Random key of the micro-batch, below 2^31; `u32[]`.
    RandomKey,
}

impl BatchInput {
    /// Every input, in declaration order.
    pub const ALL: [Self; 12] = [
        Self::Pixels,
        Self::TokenIds,
        Self::VisualIndex,
        Self::TargetPositions,
        Self::TargetIds,
        Self::TargetWeights,
        Self::VraPositions,
        Self::VraWeights,
        Self::RossWeights,
        Self::RossPictures,
        Self::RossPositions,
        Self::RandomKey,
    ];

    /// Name of the leaf.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pixels => "pixels",
            Self::TokenIds => "token_ids",
            Self::VisualIndex => "visual_index",
            Self::TargetPositions => "target_positions",
            Self::TargetIds => "target_ids",
            Self::TargetWeights => "target_weights",
            Self::VraPositions => "vra_positions",
            Self::VraWeights => "vra_weights",
            Self::RossWeights => "ross_weights",
            Self::RossPictures => "ross_pictures",
            Self::RossPositions => "ross_positions",
            Self::RandomKey => "random_key",
        }
    }
}

impl BatchShape {
    /// Extents for a model, without tiles, targets being anywhere.
    pub fn new(config: &LlavaConfig, batch: usize, tokens: usize, images: usize, targets: usize) -> Self {
        let (image_size, visual_tokens) = (config.vision.image_size, config.visual_tokens());
        Self { batch, tokens, tail: tokens, images, tiles: 0, targets, image_size, visual_tokens }
    }

    /// The same with a number of tiles.
    pub fn with_tiles(self, tiles: usize) -> Self {
        Self { tiles, ..self }
    }

    /// The same with all targets among the last `tail` positions of each sequence.
    pub fn with_tail(self, tail: usize) -> Self {
        Self { tail: tail.min(self.tokens), ..self }
    }

    /// Element type and shape of an input.
    pub fn ty(&self, input: BatchInput) -> TensorType {
        let positions = self.batch * self.tokens;
        let (dtype, shape) = match input {
            BatchInput::Pixels => (DType::F32, vec![self.images + self.tiles, 3, self.image_size, self.image_size]),
            BatchInput::TokenIds | BatchInput::VisualIndex => (DType::U32, vec![positions]),
            BatchInput::TargetPositions | BatchInput::TargetIds => (DType::U32, vec![self.targets]),
            BatchInput::TargetWeights => (DType::F32, vec![self.targets]),
            BatchInput::VraPositions => (DType::U32, vec![self.images * self.visual_tokens]),
            BatchInput::VraWeights => (DType::F32, vec![self.images * self.visual_tokens]),
            BatchInput::RossWeights => (DType::F32, vec![self.batch]),
            BatchInput::RossPictures => (DType::U32, vec![self.batch]),
            BatchInput::RossPositions => (DType::U32, vec![self.batch * self.visual_tokens]),
            BatchInput::RandomKey => (DType::U32, vec![]),
        };
        TensorType::new(dtype, shape)
    }

    /// The leaf of an input. Graphs declare only what they use: without pictures there are no pixels.
    pub fn input(&self, g: &mut Graph, input: BatchInput) -> Value {
        let ty = self.ty(input);
        g.input(input.name(), ty.dtype, &ty.shape)
    }
}
