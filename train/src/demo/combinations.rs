//! Every combination of parts, read back by the crates that train on them.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::path::Path;

use viral_model::graph::teachers;
use viral_model::weights::{Checkpoint, Inventory, NameMap};

use super::presets::Preset;
use super::*;
use crate::config::{Config, Overrides};
use crate::data::buckets;
use crate::engine::{Bundle, Networks, StepShape, plan, planning_target};

type TestResult = std::result::Result<(), Box<dyn StdError>>;

/// Writes a preset's folder with other parts, and reads its configurations.
fn networks(dir: &Path, preset: &str, parts: &Parts) -> std::result::Result<(Config, Networks), Box<dyn StdError>> {
    let preset = Preset::find(preset).ok_or("no such preset")?;
    let config = Config::load(&init_with(dir, preset, parts, 1)?, &Overrides::default())?;
    let networks = Networks::open(&config)?;
    Ok((config, networks))
}

#[test]
fn every_teacher_of_true_size_fits_every_encoder() -> TestResult {
    for (name, encoder) in Encoder::ALL {
        for teacher in TEACHERS {
            let parts = Parts { encoder: Some(encoder), teacher: Some(teacher), ..Parts::default() };
            for preset in ["llava-1.5-7b", "llava-1.5-13b", "qwen2.5-7b", "llava-next-7b"] {
                let dir = tempfile::tempdir()?;
                let (_, networks) = networks(dir.path(), preset, &parts)?;
                let grid = networks.llava.visual_grid();
                assert_eq!(grid, Some(if name == "siglip2-patch14" { 27 } else { 24 }), "{name}");
                let features = networks.teacher.map(|teacher| teacher.width());
                assert!(features.is_some_and(|width| width >= 256), "{}", teacher.name);
            }
        }
    }
    Ok(())
}

/// Wide teachers, both language models, the encoders with fewest and most visual tokens, and tiles.
#[test]
fn true_sizes_can_be_planned() -> TestResult {
    for (preset, encoder, teacher) in [
        ("llava-1.5-7b", Encoder::Clip, "dinov2-reg-g"),
        ("qwen2.5-7b", Encoder::Siglip2Patch14, "sam-h"),
        ("llava-next-7b", Encoder::Clip, "radio-v2.5-g"),
    ] {
        let dir = tempfile::tempdir()?;
        let parts =
            Parts { encoder: Some(encoder), teacher: TeacherPart::find(teacher), ross: true, ..Parts::default() };
        let (mut config, _) = networks(dir.path(), preset, &parts)?;
        config.train.batch = 1;
        let plan = plan(&config, StepShape::full(&config), &planning_target(), None)?;
        assert!(plan.to_string().contains("device memory"), "{preset} {teacher}: {plan}");
    }
    Ok(())
}

/// Weights are complete, whatever the parts: for every language model and encoder, and for every teacher.
#[test]
fn every_tiny_combination_is_complete() -> TestResult {
    // One of each kind: at tiny size, those of a kind are equal.
    let kinds = [
        "dinov2-b",
        "dinov2-g",
        "dinov2-reg-b",
        "clip-l",
        "siglip2-so400m",
        "sam-b",
        "depth-anything-v2-b",
        "radio-v2.5-b",
        "radio-v2.5-g",
    ];
    let teachers = kinds.map(|name| TEACHERS.iter().find(|teacher| teacher.name == name));
    assert!(teachers.iter().all(Option::is_some));
    let encoders = Language::ALL.iter().flat_map(|language| Encoder::ALL.map(|encoder| (language.1, encoder.1)));
    // And in turn each pair of the others.
    for ((teacher, (language, encoder)), preset) in
        teachers.into_iter().zip(encoders.cycle()).zip(["tiny", "tiny-next"].into_iter().cycle())
    {
        let dir = tempfile::tempdir()?;
        let parts = Parts { language: Some(language), encoder: Some(encoder), teacher, ross: true };
        let (config, networks) = networks(dir.path(), preset, &parts)?;
        Checkpoint::open(&config.model.path, NameMap::Llava)?.check(&Inventory::llava(&networks.llava))?;
        let teacher = teachers::open(&config.vra.teacher)?;
        Checkpoint::open(&config.vra.teacher, teacher.names())?.check(&Inventory::teacher(&*teacher))?;
        let vae = networks.vae.as_ref().ok_or("no autoencoder")?;
        Checkpoint::open(&config.ross.vae, NameMap::Vae)?.check(&Inventory::vae(vae))?;
        assert_eq!(networks.llava.visual_tokens(), if preset == "tiny" { 36 } else { 16 });
        assert_eq!(networks.llava.tiling.is_some(), preset == "tiny-next");
        assert_eq!(networks.llava.text.qkv_bias, language == Language::Qwen);
    }
    Ok(())
}

#[test]
fn a_tiny_combination_can_be_trained_on() -> TestResult {
    let dir = tempfile::tempdir()?;
    let parts = Parts {
        language: Some(Language::Qwen),
        encoder: Some(Encoder::Siglip2),
        teacher: TeacherPart::find("sam-b"),
        ross: true,
    };
    let (config, _) = networks(dir.path(), "tiny", &parts)?;
    config.check_paths()?;
    let bundle = Bundle::open(&config)?;
    let row = bundle.dataset.load(0, &*bundle.prepare, bundle.geometry)?;
    assert!(row.defect.is_none() && row.pixels.is_some_and(|pixels| pixels.len() == 3 * 96 * 96));
    Ok(())
}

/// Pictures in tiles have visual tokens of several numbers, all of which fit.
#[test]
fn a_tiny_llava_next_can_be_trained_on() -> TestResult {
    let dir = tempfile::tempdir()?;
    let (config, _) = networks(dir.path(), "tiny-next", &Parts::default())?;
    let bundle = Bundle::open(&config)?;
    let shapes = bundle.dataset.shapes();
    assert!(shapes.iter().all(|shape| (shape.tokens as usize) < config.train.max_length && shape.targets > 0));
    let counts: BTreeSet<(u32, u32)> = shapes.iter().map(|shape| (shape.visual, shape.tiles)).collect();
    // Text only, and three shapes of pictures on canvases of four tiles.
    assert_eq!(counts, BTreeSet::from([(0, 0), (70, 4), (72, 4), (88, 4)]));
    let row = bundle.dataset.load(0, &*bundle.prepare, bundle.geometry)?;
    assert_eq!(row.pixels.map(|pixels| pixels.len()), Some(5 * 3 * 56 * 56));
    let shapes = buckets(&bundle.step_plan(), shapes);
    assert!(shapes.len() <= 24, "every shape is a plan of its own: {shapes:?}");
    Ok(())
}

#[test]
fn a_published_preset_has_its_own_language_model() {
    let parts = Parts { language: Some(Language::Vicuna), ..Parts::default() };
    let dir = tempfile::tempdir();
    let result = dir.map(|dir| networks(dir.path(), "qwen2.5-7b", &parts).map(|_| ()));
    let message = result.map(|result| result.map_err(|error| error.to_string()));
    assert!(matches!(&message, Ok(Err(text)) if text.contains("language model of its own")), "{message:?}");
}
