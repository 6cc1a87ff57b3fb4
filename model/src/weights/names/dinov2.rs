//! Names of DINOv2 models and of networks that contain one.

use super::{Canonical, rename};

/// Parts of Depth Anything V2 behind the encoder.
const DEPTH_HEAD: [&str; 3] = ["depth_head.", "neck.", "head."];

/// The encoder of Depth Anything V2, of which the original release calls DINOv2 `pretrained`.
pub(super) fn depth_anything(stored: &str) -> Canonical {
    if DEPTH_HEAD.iter().any(|part| stored.starts_with(part)) {
        return Canonical::Ignored;
    }
    canonical(["pretrained.", "backbone."].iter().find_map(|prefix| stored.strip_prefix(prefix)).unwrap_or(stored))
}

pub(super) fn canonical(stored: &str) -> Canonical {
    let name =
        ["dinov2.", "dinov2_with_registers."].iter().find_map(|prefix| stored.strip_prefix(prefix)).unwrap_or(stored);
    if let Some(rest) = name.strip_prefix("encoder.layer.") {
        return Canonical::Whole(format!("encoder.layer.{}", rename(rest, &LIBRARY_BLOCK)));
    }
    if let Some((block, rest)) = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) {
        let layer = format!("encoder.layer.{block}");
        if let Some(leaf) = rest.strip_prefix("attn.qkv.") {
            let part = |which| format!("{layer}.attention.attention.{which}.{leaf}");
            return Canonical::RowThirds([part("query"), part("key"), part("value")]);
        }
        return Canonical::Whole(format!("{layer}.{}", rename(rest, &RELEASE_BLOCK)));
    }
    Canonical::Whole(rename(name, &RELEASE_TOP))
}

/// Newer in-memory names of the library, inside a block (after the layer number).
const LIBRARY_BLOCK: [(&str, &str); 5] = [
    (".attention.q_proj.", ".attention.attention.query."),
    (".attention.k_proj.", ".attention.attention.key."),
    (".attention.v_proj.", ".attention.attention.value."),
    (".attention.o_proj.", ".attention.output.dense."),
    (".mlp.down_proj.", ".mlp.weights_out."),
];

/// Names of the research release inside a block.
const RELEASE_BLOCK: [(&str, &str); 5] = [
    ("attn.proj.", "attention.output.dense."),
    ("ls1.gamma", "layer_scale1.lambda1"),
    ("ls2.gamma", "layer_scale2.lambda1"),
    ("mlp.w12.", "mlp.weights_in."),
    ("mlp.w3.", "mlp.weights_out."),
];

/// Names of the research release outside the blocks. The leading words do not occur in library names.
const RELEASE_TOP: [(&str, &str); 6] = [
    ("cls_token", "embeddings.cls_token"),
    ("mask_token", "embeddings.mask_token"),
    ("register_tokens", "embeddings.register_tokens"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
    ("norm.", "layernorm."),
];
