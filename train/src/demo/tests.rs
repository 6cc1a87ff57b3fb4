//! Folders of every preset, read back by the crates that train on them.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use viral_model::config::{Dinov2Config, ImageProcessorConfig, LlavaConfig};
use viral_model::weights::{Checkpoint, Inventory, NameMap};

use super::presets::SMALL;
use super::*;
use crate::config::{Config, Overrides};
use crate::data::{Dataset, Geometry, buckets};
use crate::engine::{Bundle, Networks, Preparer};

type TestResult = std::result::Result<(), Box<dyn StdError>>;

/// Every file below a folder with its bytes.
fn files(dir: &Path) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.insert(path.clone(), fs::read(&path)?);
        }
    }
    Ok(found)
}

/// As [`files`], by path relative to `dir`.
fn snapshot(dir: &Path) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let relative = |path: PathBuf| path.strip_prefix(dir).map(Path::to_path_buf).unwrap_or(path);
    Ok(files(dir)?.into_iter().map(|(path, bytes)| (relative(path), bytes)).collect())
}

#[test]
fn every_preset_has_a_valid_configuration() -> TestResult {
    for preset in PRESETS {
        let dir = tempfile::tempdir()?;
        let file = configurations(dir.path(), preset)?;
        let config = Config::load(&file, &Overrides::default())?;
        let llava = LlavaConfig::from_dir(&config.model.path)?;
        let teacher = Dinov2Config::from_dir(&config.vra.teacher)?;
        let processor = ImageProcessorConfig::from_dir(&config.model.path)?;
        assert_eq!(processor, ImageProcessorConfig::clip(llava.vision.image_size));
        // The teacher yields one target for each visual token.
        let grid = llava.vision.image_size / teacher.patch_size;
        assert_eq!(grid * grid, llava.visual_tokens(), "{}", preset.name);
        assert!(config.vra.layers.iter().all(|&layer| layer < llava.text.layers), "{}", preset.name);
        assert!(Preset::find(preset.name).is_some_and(|found| std::ptr::eq(found, preset)));
    }
    Ok(())
}

#[test]
fn published_models_have_their_known_sizes() -> TestResult {
    for (preset, parameters) in [("llava-1.5-7b", 7_063_427_072u64), ("llava-1.5-13b", 13_351_494_656)] {
        let dir = tempfile::tempdir()?;
        configurations(dir.path(), Preset::find(preset).ok_or(preset)?)?;
        let llava = LlavaConfig::from_dir(&dir.path().join("llava"))?;
        let text = &llava.text;
        let (hidden, wide) = (text.hidden_size as u64, text.intermediate_size as u64);
        let layer = 4 * hidden * hidden + 3 * hidden * wide + 2 * hidden;
        let language = text.layers as u64 * layer + 2 * text.vocab_size as u64 * hidden + hidden;
        let vision = 303_507_456 + 1024 * hidden + hidden + hidden * hidden + hidden;
        assert_eq!(language + vision, parameters, "{preset}");
    }
    Ok(())
}

#[test]
fn the_tiny_folder_is_a_function_of_the_seed() -> TestResult {
    let write = |seed| -> std::result::Result<_, Box<dyn StdError>> {
        let dir = tempfile::tempdir()?;
        init(dir.path(), &TINY, seed)?;
        Ok(snapshot(dir.path())?)
    };
    let (first, again, other) = (write(5)?, write(5)?, write(6)?);
    assert_eq!(first.keys().collect::<Vec<_>>(), again.keys().collect::<Vec<_>>());
    assert!(first.iter().zip(&again).all(|(a, b)| a == b));
    assert_ne!(first[Path::new("llava/model.safetensors")], other[Path::new("llava/model.safetensors")]);
    assert_ne!(first[Path::new("train.json")], other[Path::new("train.json")]);
    let bytes: usize = first.values().map(Vec::len).sum();
    assert!(bytes < 8 << 20, "{bytes} bytes");
    Ok(())
}

#[test]
fn the_tiny_weights_are_complete() -> TestResult {
    let dir = tempfile::tempdir()?;
    init(dir.path(), &TINY, 1)?;
    let llava = LlavaConfig::from_dir(&dir.path().join("llava"))?;
    Checkpoint::open(&dir.path().join("llava"), NameMap::Llava)?.check(&Inventory::llava(&llava))?;
    let teacher = Dinov2Config::from_dir(&dir.path().join("dinov2"))?;
    Checkpoint::open(&dir.path().join("dinov2"), NameMap::Dinov2)?.check(&Inventory::teacher(&teacher))?;
    Ok(())
}

#[test]
fn the_tiny_folder_can_be_trained_on() -> TestResult {
    let dir = tempfile::tempdir()?;
    let config = Config::load(&init(dir.path(), &TINY, 1)?, &Overrides::default())?;
    config.check_paths()?;
    let bundle = Bundle::open(&config)?;
    assert_eq!(bundle.dataset.len(), 400);
    // A question, an answer and a picture, and nothing is cut.
    let longest = bundle.dataset.shapes().iter().map(|shape| shape.tokens).max();
    assert!(longest.is_some_and(|longest| (80..=128).contains(&longest)), "{longest:?}");
    for position in [0, 1] {
        let row = bundle.dataset.load(position, &*bundle.prepare, bundle.geometry)?;
        assert!(row.defect.is_none());
        assert_eq!(row.pixels.is_some(), row.sample.visual_len == 36);
        // The answer, in words, with the end token behind it.
        let ids: Vec<u32> = row.sample.targets.iter().map(|&(_, id)| id).collect();
        assert_eq!(ids.last(), Some(&2));
    }
    let plan = bundle.step_plan();
    assert_eq!(plan.steps(), 100);
    let shapes = buckets(&plan, bundle.dataset.shapes());
    assert!(shapes.len() <= 16, "every shape is a plan of its own: {shapes:?}");
    Ok(())
}

#[test]
fn a_step_of_the_small_folder_has_the_tokens_that_it_says() -> TestResult {
    let dir = tempfile::tempdir()?;
    let config = Config::load(&configurations(dir.path(), &SMALL)?, &Overrides::default())?;
    let networks = Networks::open(&config)?;
    let mut dataset = Dataset::open(&config.data.train, &config.data.images, config.data.on_bad_sample)?;
    let geometry = Geometry { visual_tokens: 256, max_length: config.train.max_length, image_side: 224 };
    assert_eq!(networks.llava.visual_tokens(), geometry.visual_tokens);
    dataset.measure(&Preparer::open(&config, &networks)?, geometry)?;
    for step in dataset.shapes().chunks(config.train.batch) {
        let tokens: u32 = step.iter().map(|shape| shape.tokens).sum();
        assert!((1090..=1150).contains(&tokens), "{tokens}");
    }
    Ok(())
}

#[test]
fn nothing_is_overwritten() -> TestResult {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("mine"), "x")?;
    match init(dir.path(), &TINY, 1) {
        Err(error) => assert!(error.what.contains("not empty"), "{error}"),
        Ok(path) => panic!("{}", path.display()),
    }
    assert_eq!(snapshot(dir.path())?.len(), 1);
    Ok(())
}
