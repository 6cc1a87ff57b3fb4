//! Tensor names: every known dialect is mapped to one canonical name.
//!
//! LLaVA's canonical names are those of the library's current module tree, without the optional `vision_model` level:
//! `model.language_model.layers.N.…`, `lm_head.weight`, `model.vision_tower.…`, `model.multi_modal_projector.…`.
//! DINOv2's are those of the files on the hub: `embeddings.…`, `encoder.layer.N.…`, `layernorm.…`.

/// Which renaming rule a checkpoint's names go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameMap {
    /// LLaVA: original names, older and newer library names.
    Llava,
    /// DINOv2: names of the research release, library names, and the library's newer in-memory names.
    Dinov2,
    /// Names stay as they are stored.
    Verbatim,
}

/// Where a stored tensor goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Canonical {
    /// A derived table that is recomputed, never loaded.
    Ignored,
    /// One tensor under this name.
    Whole(String),
    /// Three tensors, stored one after the other along the first axis.
    RowThirds([String; 3]),
}

impl NameMap {
    /// The canonical names of a stored tensor: one as a rule, none for tables that are recomputed (`inv_freq`,
    /// `position_ids`), three for a fused query-key-value matrix.
    pub fn canonical(self, stored: &str) -> Vec<String> {
        match self.map(stored) {
            Canonical::Ignored => Vec::new(),
            Canonical::Whole(name) => vec![name],
            Canonical::RowThirds(names) => names.to_vec(),
        }
    }

    pub(super) fn map(self, stored: &str) -> Canonical {
        if matches!(self, NameMap::Verbatim) {
            return Canonical::Whole(stored.to_string());
        }
        if ["inv_freq", "position_ids"].iter().any(|leaf| stored.rsplit('.').next() == Some(leaf)) {
            return Canonical::Ignored;
        }
        match self {
            NameMap::Llava => Canonical::Whole(llava_name(stored)),
            NameMap::Dinov2 => dinov2_name(stored),
            NameMap::Verbatim => Canonical::Whole(stored.to_string()),
        }
    }
}

/// The canonical name of a LLaVA tensor or module, whichever dialect it comes in. Unknown names pass unchanged.
pub(crate) fn llava_name(stored: &str) -> String {
    /// Prefix rules; the first match applies.
    const RULES: [(&str, &str); 14] = [
        // Older library files, which are those on the hub.
        ("language_model.lm_head.", "lm_head."),
        ("language_model.model.", "model.language_model."),
        ("language_model.", "model.language_model."),
        ("vision_tower.", "model.vision_tower."),
        ("multi_modal_projector.", "model.multi_modal_projector."),
        ("image_newline", "model.image_newline"),
        // The original LLaVA code.
        ("mm_projector.0.", "model.multi_modal_projector.linear_1."),
        ("mm_projector.2.", "model.multi_modal_projector.linear_2."),
        ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
        ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
        ("model.vision_tower.vision_tower.", "model.vision_tower."),
        ("model.embed_tokens.", "model.language_model.embed_tokens."),
        ("model.layers.", "model.language_model.layers."),
        ("model.norm.", "model.language_model.norm."),
    ];
    let name = stored.strip_prefix("base_model.model.").unwrap_or(stored);
    let renamed = RULES.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)));
    let name = renamed.unwrap_or_else(|| name.to_string());
    match name.strip_prefix("model.vision_tower.vision_model.") {
        Some(rest) => format!("model.vision_tower.{rest}"),
        None => name,
    }
}

fn dinov2_name(stored: &str) -> Canonical {
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

/// Replaces the one part that a rule matches: at the start of the name, or, for rules that begin with a dot, after the
/// layer number.
fn rename(name: &str, rules: &[(&str, &str)]) -> String {
    for (from, to) in rules {
        let at = if from.starts_with('.') { name.find('.') } else { Some(0) };
        if let Some((head, tail)) = at.and_then(|at| name.split_at_checked(at))
            && let Some(rest) = tail.strip_prefix(from)
        {
            return format!("{head}{to}{rest}");
        }
    }
    name.to_string()
}
