//! Teachers in the layouts of their research releases: what tensors are called there.

/// From canonical names to those of a release.
#[derive(Clone, Copy)]
pub(crate) struct Release {
    /// Stands in front of all names but those of the input's conditioner.
    prefix: &'static str,
    /// Parts of a name and what stands in their place, each in turn.
    parts: &'static [(&'static str, &'static str)],
}

/// Blocks of DINOv2.
const BLOCKS: &[(&str, &str)] = &[
    ("attention.output.dense.", "attn.proj."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("mlp.weights_in.", "mlp.w12."),
    ("mlp.weights_out.", "mlp.w3."),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("embeddings.", ""),
    ("encoder.layer.", "blocks."),
    ("layernorm.", "norm."),
];

pub(crate) const DINOV2: Release = Release { prefix: "", parts: BLOCKS };
pub(crate) const DEPTH_ANYTHING: Release = Release { prefix: "pretrained.", parts: BLOCKS };
pub(crate) const RADIO: Release = Release { prefix: "base_model.", parts: &[] };
pub(crate) const RADIO_GIANT: Release = Release { prefix: "base_model.inner.", parts: BLOCKS.split_at(5).0 };
pub(crate) const SAM: Release = Release {
    prefix: "image_encoder.",
    parts: &[
        ("patch_embed.projection.", "patch_embed.proj."),
        ("neck.conv1.", "neck.0."),
        ("neck.layer_norm1.", "neck.1."),
        ("neck.conv2.", "neck.2."),
        ("neck.layer_norm2.", "neck.3."),
        ("layers.", "blocks."),
        ("layer_norm1.", "norm1."),
        ("layer_norm2.", "norm2."),
    ],
};

impl Release {
    /// The name in a release, and which third of that tensor it is where query, key and value are one.
    pub(crate) fn name(&self, canonical: &str) -> (String, Option<usize>) {
        if canonical.starts_with("input_conditioner.") {
            return (canonical.to_owned(), None);
        }
        let parts = self.parts.iter();
        let name = parts.fold(canonical.to_owned(), |name, (from, to)| name.replace(from, to));
        for (third, part) in ["query", "key", "value"].into_iter().enumerate() {
            let part = format!("attention.attention.{part}.");
            if name.contains(&part) {
                return (format!("{}{}", self.prefix, name.replace(&part, "attn.qkv.")), Some(third));
            }
        }
        (format!("{}{name}", self.prefix), None)
    }
}
