//! Names of LLaVA models: original code, older and newer library files, adapters.

/// The canonical name of a LLaVA tensor or module, whichever dialect it comes in. Unknown names pass unchanged.
pub(crate) fn llava_name(stored: &str) -> String {
    /// Prefix rules; the first match applies.
    const RULES: [(&str, &str); 16] = [
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
        ("model.denoiser.", "denoiser."),
        ("model.mm_inv_projector.", "denoiser."),
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
