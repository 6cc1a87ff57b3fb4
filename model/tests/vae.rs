//! Autoencoders by their configuration files: the published one's sizes, and what is refused.

use std::collections::HashMap;
use std::path::Path;

use viral_model::config::{ConfigError, VaeConfig};
use viral_model::weights::Inventory;

fn vae(json: &str) -> Result<VaeConfig, ConfigError> {
    VaeConfig::from_json(Path::new("config.json"), json.as_bytes())
}

#[test]
fn flux_as_published() {
    let config = vae(
        r#"{"_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
            "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
            "force_upcast": true, "in_channels": 3, "latent_channels": 16, "latents_mean": null, "latents_std": null,
            "layers_per_block": 2, "mid_block_add_attention": true, "norm_num_groups": 32, "out_channels": 3,
            "sample_size": 1024, "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_post_quant_conv": false,
            "use_quant_conv": false}"#,
    )
    .unwrap();
    assert_eq!((config.reduction(), config.token_width(), config.picture_side(24)), (8, 64, 384));
    let tensors: HashMap<String, Vec<usize>> =
        Inventory::vae(&config).required.into_iter().map(|spec| (spec.name, spec.shape)).collect();
    assert_eq!(tensors["encoder.conv_in.weight"], [128, 3, 3, 3]);
    assert_eq!(tensors["encoder.down_blocks.1.resnets.0.conv_shortcut.weight"], [256, 128, 1, 1]);
    assert_eq!(tensors["encoder.down_blocks.2.downsamplers.0.conv.weight"], [512, 512, 3, 3]);
    assert!(!tensors.contains_key("encoder.down_blocks.3.downsamplers.0.conv.weight"));
    assert_eq!(tensors["encoder.mid_block.attentions.0.to_out.0.weight"], [512, 512]);
    assert_eq!(tensors["encoder.conv_out.weight"], [32, 512, 3, 3]);
}

#[test]
fn missing_keys_take_the_defaults_of_the_library() {
    let config = vae("{}").unwrap();
    let expected = VaeConfig {
        channels: vec![64],
        layers_per_block: 1,
        groups: 32,
        latent_channels: 4,
        mid_attention: true,
        quant_conv: true,
        scaling_factor: 0.18215,
        shift_factor: 0.0,
    };
    assert_eq!(config, expected);
    assert!(Inventory::vae(&config).required.iter().any(|spec| spec.name == "quant_conv.weight"));
}

#[test]
fn refusals_name_key_and_value() {
    for (json, message) in [
        (r#"{"_class_name": "AutoencoderTiny"}"#, "`_class_name` = \"AutoencoderTiny\" is not supported"),
        (r#"{"act_fn": "gelu"}"#, "`act_fn` = \"gelu\" is not supported"),
        (r#"{"latents_mean": [0.1]}"#, "`latents_mean` = [0.1] is not supported"),
        (r#"{"block_out_channels": [64, 128]}"#, "`down_block_types` is missing, expected a DownEncoderBlock2D"),
        (r#"{"down_block_types": ["AttnDownEncoderBlock2D"]}"#, "`down_block_types`"),
        (r#"{"block_out_channels": []}"#, "`block_out_channels` is []"),
        (r#"{"block_out_channels": [40]}"#, "is not a multiple of `norm_num_groups` = 32"),
        (r#"{"scaling_factor": 0}"#, "`scaling_factor` is 0"),
    ] {
        let error = vae(json).map(|_| ()).expect_err(json).to_string();
        assert!(error.contains(message), "{error}");
    }
}
