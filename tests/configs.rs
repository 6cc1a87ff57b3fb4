//! The ready-made configurations: each is sound, and the rows of a table differ from the second stage in what the row is about.

use std::fs;
use std::path::{Path, PathBuf};

use viral_train::Config;
use viral_train::config::{Assignment, Overrides, SECTIONS};

/// For each row of a table the keys in which it differs from `stage2.toml`, the run folder aside.
const ROWS: [(&str, &[&str]); 28] = [
    ("table2/baseline", &["vra.enabled=false"]),
    ("table2/vfm-dinov2", &[]),
    ("table2/vfm-clip", &["vra.target=encoder"]),
    ("table2/vfm-sam", &["vra.teacher=../models/sam-vit-base"]),
    ("table2/vfm-dav2", &["vra.teacher=../models/depth-anything-v2-base"]),
    ("table2/vfm-radio", &["vra.teacher=../models/radio-v2.5-b"]),
    ("table2/layer-04", &["vra.layers=[4]"]),
    ("table2/layer-08", &["vra.layers=[8]"]),
    ("table2/layer-12", &["vra.layers=[12]"]),
    ("table2/layer-16", &[]),
    ("table2/layer-20", &["vra.layers=[20]"]),
    ("table2/layer-24", &["vra.layers=[24]"]),
    ("table2/layer-28", &["vra.layers=[28]"]),
    ("table2/layer-32", &["vra.layers=[32]"]),
    ("table4/a-baseline", &["vra.enabled=false"]),
    ("table4/b-residual", &["vra.enabled=false", "residual.enabled=true"]),
    ("table4/c-encoder", &["vra.target=encoder"]),
    ("table4/d-residual-before", &["vra.enabled=false", "residual.enabled=true", "residual.source=pre_projection"]),
    ("table4/e-post-projection", &["vra.target=post_projection"]),
    ("table5/layers-16", &[]),
    ("table5/layers-15-17", &["vra.layers=[15, 16, 17]"]),
    ("table5/layers-14-18", &["vra.layers=[14, 15, 16, 17, 18]"]),
    ("table5/objective-cosine", &[]),
    ("table5/objective-relation", &["vra.objective=relation"]),
    ("table6/baseline", &["vra.enabled=false"]),
    ("table6/ross", &["vra.enabled=false", "ross.enabled=true"]),
    ("table6/ross-middle", &["vra.enabled=false", "ross.enabled=true", "ross.layer=16"]),
    ("table6/viral", &[]),
];

#[test]
fn every_row_of_the_tables_is_a_key_or_two_from_the_second_stage() {
    for (name, keys) in ROWS {
        let row = load(&configs().join(format!("{name}.toml")), &[]);
        let expected = load(&configs().join("stage2.toml"), keys);
        // Rows without reconstruction do not say where its autoencoder is.
        let is_meant = |path: &str| path != "output.dir" && (path != "ross.vae" || row.ross.enabled);
        for key in SECTIONS.iter().flat_map(|section| section.keys).filter(|key| is_meant(&key.path())) {
            assert_eq!(plain(row.get(key)), plain(expected.get(key)), "{name}: {}", key.path());
        }
        assert_eq!(row.output.dir.file_name().unwrap().to_str().unwrap(), name.replace('/', "-"));
    }
}

#[test]
fn every_file_is_sound_and_known() {
    let mut stages = Vec::new();
    for file in files(&configs()) {
        let config = load(&file, &[]);
        let name = file.strip_prefix(configs()).unwrap().with_extension("");
        let name = name.to_str().unwrap().replace('\\', "/");
        let global_batch = config.train.batch * config.train.accumulation;
        assert_eq!(global_batch, if name == "stage1" { 256 } else { 128 }, "{name}");
        if !ROWS.iter().any(|(row, _)| *row == name) {
            stages.push(name);
        }
    }
    stages.sort();
    assert_eq!(stages, ["stage1", "stage2", "stage2-full"]);
}

fn load(file: &Path, keys: &[&str]) -> Config {
    let set = keys.iter().map(|key| Assignment::from_set(key).unwrap()).collect();
    let overrides = Overrides { set, ..Overrides::default() };
    Config::load(file, &overrides).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// A value in which paths say the same wherever the file lies.
fn plain(value: Option<toml::Value>) -> Option<toml::Value> {
    let Some(toml::Value::String(text)) = value else { return value };
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split(['/', '\\']) {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    Some(toml::Value::String(parts.join("/")))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let (dirs, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.chain(dirs.iter().flat_map(|dir| self::files(dir))).collect()
}

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs")
}
