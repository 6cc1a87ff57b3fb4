//! Configuration files: library defaults, both generations of keys, and a message for everything that is refused.

use std::path::Path;

use viral_model::config::{
    Activation, ConfigError, Dinov2Config, Dinov2Ffn, FeatureSelect, Filter, ImageProcessorConfig, ImageSize,
    LlavaConfig, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, TextFamily, VisionConfig,
};

fn llava(json: &str) -> Result<LlavaConfig, ConfigError> {
    LlavaConfig::from_json(Path::new("config.json"), json.as_bytes())
}

fn dinov2(json: &str) -> Result<Dinov2Config, ConfigError> {
    Dinov2Config::from_json(Path::new("config.json"), json.as_bytes())
}

fn processor(json: &str) -> Result<ImageProcessorConfig, ConfigError> {
    ImageProcessorConfig::from_json(Path::new("preprocessor_config.json"), json.as_bytes())
}

/// The published file of llava-1.5-7b, which names hardly anything.
#[test]
fn sparse_published_file_takes_library_defaults() {
    let config = llava(
        r#"{"architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_token_index": 32000,
            "model_type": "llava", "pad_token_id": 32001, "projector_hidden_act": "gelu",
            "text_config": {"_name_or_path": "lmsys/vicuna-7b-v1.5", "max_position_embeddings": 4096,
                "model_type": "llama", "rms_norm_eps": 1e-05, "torch_dtype": "float16", "vocab_size": 32064},
            "tie_word_embeddings": false, "torch_dtype": "float16",
            "vision_config": {"hidden_size": 1024, "image_size": 336, "intermediate_size": 4096,
                "model_type": "clip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 24,
                "patch_size": 14, "projection_dim": 768, "vocab_size": 32000},
            "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32064}"#,
    )
    .unwrap();
    let text = &config.text;
    assert_eq!((text.hidden_size, text.intermediate_size, text.layers), (4096, 11008, 32));
    assert_eq!((text.heads, text.kv_heads, text.head_dim, text.vocab_size), (32, 32, 128, 32064));
    assert_eq!((text.rms_norm_eps, text.rope_theta), (1e-5, 10000.0));
    assert_eq!((text.qkv_bias, text.output_bias, config.tied_head()), (false, false, false));
    assert_eq!(config.vision, VisionConfig::clip_large_336());
    assert_eq!((config.vision_blocks(), config.visual_tokens()), (23, 576));
    assert_eq!(config.projector_hidden_act, Activation::Gelu);
    assert!(config.projector_bias);
}

#[test]
fn an_almost_empty_file_is_llava_on_llama_and_clip_large() {
    let config = llava(r#"{"model_type": "llava"}"#).unwrap();
    assert_eq!(config.text.family, TextFamily::Llama);
    assert_eq!(config.text.rms_norm_eps, 1e-6);
    assert_eq!(config.vision, VisionConfig::clip_large_336());
    assert_eq!((config.image_token_index, config.feature_select), (32000, FeatureSelect::Patches));
    // A section that is present, however short, takes the defaults of its own class instead.
    let config = llava(r#"{"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}}"#).unwrap();
    assert_eq!((config.vision.hidden_size, config.vision.image_size, config.vision.patch_size), (768, 224, 32));
}

#[test]
fn both_generations_of_keys_are_read() {
    let old = r#"{"model_type": "llava", "image_token_index": 7, "torch_dtype": "float16",
                  "text_config": {"rope_theta": 5e5, "rope_scaling": null}}"#;
    let new = r#"{"model_type": "llava", "image_token_id": 7, "dtype": "float16",
                  "text_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}}"#;
    assert_eq!(llava(old).unwrap(), llava(new).unwrap());
    assert_eq!(llava(new).unwrap().text.rope_theta, 5e5);
}

#[test]
fn grouped_heads_and_explicit_head_width() {
    let config = llava(
        r#"{"model_type": "llava", "text_config": {"hidden_size": 96, "num_attention_heads": 6,
            "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 200, "num_hidden_layers": 3}}"#,
    )
    .unwrap();
    assert_eq!((config.text.query_width(), config.text.kv_width()), (192, 64));
}

#[test]
fn qwen2_has_biases_and_its_own_defaults() {
    let config = llava(
        r#"{"model_type": "llava", "text_config": {"model_type": "qwen2", "hidden_size": 3584,
            "num_attention_heads": 28, "num_key_value_heads": 4, "use_sliding_window": false, "sliding_window": 131072,
            "tie_word_embeddings": true}}"#,
    )
    .unwrap();
    assert_eq!((config.text.vocab_size, config.text.intermediate_size), (151_936, 22016));
    assert!(config.text.qkv_bias && !config.text.output_bias && config.tied_head());
}

#[test]
fn feature_layer_counts_from_either_end() {
    let cases: [(&str, &[usize]); 7] = [
        ("-1", &[24]),
        ("-2", &[23]),
        ("-25", &[0]),
        ("0", &[0]),
        ("24", &[24]),
        ("[-2]", &[23]),
        ("[3, -2, 0]", &[3, 23, 0]),
    ];
    for (layer, layers) in cases {
        let json = format!(r#"{{"model_type": "llava", "vision_feature_layer": {layer}}}"#);
        let config = llava(&json).unwrap();
        assert_eq!(config.vision_layers, layers, "{layer}");
        assert_eq!(config.feature_width(), 1024 * layers.len());
        assert_eq!(config.vision_blocks(), *layers.iter().max().unwrap());
    }
    let full = llava(r#"{"model_type": "llava", "vision_feature_select_strategy": "full"}"#).unwrap();
    assert_eq!((full.visual_tokens(), full.visual_grid()), (577, None));
}

#[test]
fn the_encoder_decides_how_many_visual_tokens_there_are() {
    let siglip = |size: &str, strategy: &str| {
        llava(&format!(
            r#"{{"model_type": "llava", "vision_feature_select_strategy": "{strategy}", "vision_config":
                {{"model_type": "siglip_vision_model", "hidden_size": 1152, "num_attention_heads": 16, {size}}}}}"#
        ))
    };
    for (size, grid) in [
        (r#""patch_size": 14, "image_size": 384"#, 27),
        (r#""patch_size": 16, "image_size": 384"#, 24),
        (r#""patch_size": 16, "image_size": 256"#, 16),
    ] {
        let config = siglip(size, "full").unwrap();
        assert_eq!((config.visual_tokens(), config.visual_grid()), (grid * grid, Some(grid)));
        assert_eq!((config.vision.positions(), config.vision.layer_norm_eps), (grid * grid, 1e-6));
        assert_eq!(config.vision.hidden_act, Activation::GeluTanh);
    }
    // The library would leave out the first patch without a word.
    let error = siglip(r#""patch_size": 16"#, "default").unwrap_err();
    assert!(error.to_string().contains("no class token"), "{error}");
}

#[test]
fn dinov2_sizes() {
    let base = dinov2(r#"{"model_type": "dinov2", "image_size": 518}"#).unwrap();
    assert_eq!((base.grid(), base.positions(), base.register_tokens), (37, 1370, 0));
    assert_eq!(base.ffn, Dinov2Ffn::Mlp { hidden: 3072, act: Activation::Gelu });
    let giant = dinov2(
        r#"{"model_type": "dinov2_with_registers", "hidden_size": 1536, "num_attention_heads": 24, "mlp_ratio": 4,
            "num_hidden_layers": 40, "use_swiglu_ffn": true, "patch_size": 14}"#,
    )
    .unwrap();
    assert_eq!(giant.ffn, Dinov2Ffn::SwiGlu { hidden: 4096 });
    assert_eq!(giant.register_tokens, 4);
}

#[test]
fn processor_forms() {
    let clip = ImageProcessorConfig::clip(336);
    let published = r#"{"crop_size": {"height": 336, "width": 336}, "do_center_crop": true, "do_convert_rgb": true,
        "do_normalize": true, "do_rescale": true, "do_resize": true, "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 336}}"#;
    assert_eq!(processor(published).unwrap(), clip);
    assert_eq!(processor(r#"{"crop_size": 336, "size": 336}"#).unwrap(), clip);
    assert_eq!(processor("{}").unwrap(), ImageProcessorConfig::clip(224));
    let exact = processor(
        r#"{"size": {"height": 20, "width": 30}, "resample": 2, "do_center_crop": false, "do_normalize": false,
            "image_processor_type": "BitImageProcessorFast"}"#,
    )
    .unwrap();
    assert_eq!(exact.resize, Some(ImageSize::Exact { height: 20, width: 30 }));
    assert_eq!((exact.resample, exact.crop, exact.normalize), (Filter::Bilinear, None, None));
    let llava = processor(r#"{"image_processor_type": "LlavaImageProcessorFast", "do_pad": true}"#).unwrap();
    assert!(llava.pad);
    assert_eq!(llava.normalize, Some((OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)));
}

#[test]
fn processor_section_of_a_processor_file_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("preprocessor_config.json", r#"{"size": 10, "crop_size": 10}"#);
    write("processor_config.json", r#"{"patch_size": 14}"#);
    assert_eq!(ImageProcessorConfig::from_dir(dir.path()).unwrap(), ImageProcessorConfig::clip(10));
    write("processor_config.json", r#"{"image_processor": {"size": 20, "crop_size": 20}}"#);
    assert_eq!(ImageProcessorConfig::from_dir(dir.path()).unwrap(), ImageProcessorConfig::clip(20));
}

/// Every refusal names the key and the value.
#[test]
fn refusals_name_key_and_value() {
    let text = |body: &str| llava(&format!(r#"{{"model_type": "llava", "text_config": {{{body}}}}}"#)).map(drop);
    let vision = |body: &str| llava(&format!(r#"{{"model_type": "llava", "vision_config": {{{body}}}}}"#)).map(drop);
    let top = |body: &str| llava(&format!("{{{body}}}")).map(drop);
    let teacher = |body: &str| dinov2(&format!(r#"{{"model_type": "dinov2", {body}}}"#)).map(drop);
    let image = |body: &str| processor(&format!("{{{body}}}")).map(drop);
    let original = |body: &str| top(&format!(r#""model_type": "llava_llama"{body}"#));
    let cases = [
        (top(r#""model_type": "llava_mistral""#), r#"`model_type` = "llava_mistral" is not supported"#),
        (top(r#""model_type": "llama""#), "it is a language model without a vision tower"),
        (original(""), "name the tower's directory as model.vision"),
        (original(r#", "mm_projector_type": "linear""#), r#"`mm_projector_type` = "linear" is not supported"#),
        (original(r#", "mm_use_im_start_end": true"#), "`mm_use_im_start_end` = true is not supported"),
        (original(r#", "mm_patch_merge_type": "spatial_unpad""#), "`mm_patch_merge_type`"),
        (original(r#", "mm_vision_tower": "google/vit""#), r#"`mm_vision_tower` = "google/vit" is not supported"#),
        (original(r#", "mm_vision_tower": "x/clip-vit-large-patch14-336", "mm_hidden_size": 768"#), "1024, the width"),
        (top(""), "`model_type` is missing, expected llava"),
        (top(r#""model_type": 3"#), "`model_type` is 3, expected a string"),
        (top(r#""model_type": "llava", "quantization_config": {}"#), "`quantization_config` = {}"),
        (
            top(r#""model_type": "llava", "vision_feature_layer": []"#),
            "`vision_feature_layer` is [], expected an integer",
        ),
        (top(r#""model_type": "llava", "vision_feature_layer": -26"#), "outside the 25 hidden states"),
        (top(r#""model_type": "llava", "projector_hidden_act": "mish""#), r#"`projector_hidden_act` = "mish""#),
        (top(r#""model_type": "llava", "text_config": []"#), "`text_config` is [], expected an object"),
        (text(r#""model_type": "gemma""#), r#"`text_config.model_type` = "gemma" is not supported"#),
        (text(r#""hidden_act": "gelu""#), r#"`text_config.hidden_act` = "gelu" is not supported; supported: silu"#),
        (text(r#""hidden_size": 100"#), "`text_config.hidden_size` = 100 is not a multiple"),
        (text(r#""hidden_size": -4"#), "`text_config.hidden_size` is -4, expected a positive integer"),
        (text(r#""hidden_size": 1e30"#), "expected a positive integer"),
        (text(r#""num_key_value_heads": 5"#), "is not a multiple of `text_config.num_key_value_heads` = 5"),
        (text(r#""head_dim": 5"#), "the head width 5 is odd"),
        (text(r#""mlp_bias": true"#), "`text_config.mlp_bias` = true"),
        (text(r#""attention_dropout": 0.1"#), "`text_config.attention_dropout` = 0.1"),
        (text(r#""rope_scaling": {"type": "linear", "factor": 2}"#), r#"`text_config.rope_scaling.type` = "linear""#),
        (text(r#""rope_parameters": {"rope_type": "yarn"}"#), r#"`text_config.rope_parameters.rope_type` = "yarn""#),
        (text(r#""model_type": "qwen2", "use_sliding_window": true"#), "`text_config.use_sliding_window` = true"),
        (text(r#""layer_types": ["sliding_attention"]"#), "`text_config.layer_types`"),
        (text(r#""rms_norm_eps": 0"#), "`text_config.rms_norm_eps` is 0, expected a number above zero"),
        (vision(r#""model_type": "siglip2_vision_model""#), r#"`vision_config.model_type` = "siglip2_vision_model""#),
        (vision(r#""image_size": [224, 448]"#), "`vision_config.image_size` = [224,448] is not supported"),
        (vision(r#""image_size": 230"#), "`vision_config.image_size` = 230 is not a multiple"),
        (vision(r#""num_channels": 1"#), "`vision_config.num_channels` = 1"),
        (vision(r#""hidden_act": "relu""#), r#"`vision_config.hidden_act` = "relu""#),
        (teacher(r#""mlp_ratio": "x""#), r#"`mlp_ratio` is "x", expected a number"#),
        (teacher(r#""hidden_act": "silu""#), r#"`hidden_act` = "silu""#),
        (image(r#""resample": 1"#), "`resample` = 1 is not supported"),
        (
            image(r#""image_processor_type": "Siglip2ImageProcessor""#),
            r#"`image_processor_type` = "Siglip2ImageProcessor""#,
        ),
        (image(r#""size": {"longest_edge": 3}"#), r#"`size` = {"longest_edge":3}"#),
        (image(r#""crop_size": {"height": 3}"#), r#"`crop_size` is {"height":3}, expected"#),
        (image(r#""image_mean": [0.5, 0.5]"#), "`image_mean` is [0.5,0.5], expected a list of three numbers"),
        (image(r#""image_std": [0.5, 0, 0.5]"#), "`image_std` is [0.5,0,0.5]"),
        (image(r#""do_pad": true"#), "`do_pad` = true is not supported"),
    ];
    for (result, expected) in cases {
        let message = result.expect_err(expected).to_string();
        assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        assert!(message.contains("config.json: "), "`{message}` lacks the file");
    }
}

#[test]
fn missing_and_broken_files() {
    let dir = tempfile::tempdir().unwrap();
    let message = LlavaConfig::from_dir(dir.path()).unwrap_err().to_string();
    assert!(message.contains("cannot read") && message.contains("check the path"), "{message}");
    std::fs::write(dir.path().join("config.json"), "{\"model_type\": ").unwrap();
    let message = LlavaConfig::from_dir(dir.path()).unwrap_err().to_string();
    assert!(message.contains("is not a JSON object") && message.contains("line 1"), "{message}");
    std::fs::write(dir.path().join("config.json"), "[1, 2]").unwrap();
    let message = LlavaConfig::from_dir(dir.path()).unwrap_err().to_string();
    assert!(message.contains("the root is [1,2]"), "{message}");
}

/// The keys of a published original LLaVA-1.5 give the model that the library's files give.
#[test]
fn the_original_layout_is_the_same_model() {
    let original = llava(
        r#"{"model_type": "llava_llama", "hidden_size": 4096, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
            "mm_vision_tower": "openai/clip-vit-large-patch14-336", "mm_hidden_size": 1024,
            "mm_projector_type": "mlp2x_gelu", "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch",
            "mm_use_im_start_end": false, "mm_use_im_patch_token": false, "image_aspect_ratio": "pad",
            "tune_mm_mlp_adapter": false, "use_mm_proj": true, "pretraining_tp": 1, "vra_loss": true}"#,
    )
    .unwrap();
    let library = llava(
        r#"{"model_type": "llava", "image_token_index": -200,
            "text_config": {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5}}"#,
    )
    .unwrap();
    assert_eq!(original, library);
}
