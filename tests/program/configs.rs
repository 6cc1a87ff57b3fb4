//! The ready-made configurations and the rows of the paper's tables: each is sound, and a row differs from the others in what it
//! is about.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use viral_train::Config;
use viral_train::config::{Assignment, Overrides, Recipe, SECTIONS, Subject, changes};

#[test]
fn one_key_switches_between_all_rows() {
    let file = configs().join("stage2.toml");
    let plain = load(&file, &["recipe.row=table6/baseline"]);
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for recipe in Recipe::ALL {
        let row = load(&file, &[&format!("recipe.row={}", recipe.name)]);
        assert_eq!(row.recipe.row, Some(*recipe));
        // The row's keys by hand, without the row, give the same configuration.
        let by_hand = recipe.keys.iter().map(|(key, value)| match *key {
            "vra.teacher" | "ross.vae" => format!("{key}=../models/{}", value.trim_matches('"')),
            _ => format!("{key}={value}"),
        });
        let by_hand: Vec<String> = by_hand.chain(["recipe.row=\"\"".to_owned()]).collect();
        let by_hand = load(&file, &by_hand.iter().map(String::as_str).collect::<Vec<_>>());
        let differ: Vec<_> = changes(&by_hand, &row, Subject::All).into_iter().map(|change| change.key).collect();
        assert_eq!(differ, ["recipe.row"], "{}", recipe.name);
        // Only what the row names is apart from any other row.
        for change in changes(&plain, &row, Subject::All) {
            let is_own = recipe.keys.iter().any(|(key, _)| *key == change.key);
            assert!(
                is_own || ["recipe.row", "vra.enabled"].contains(&change.key.as_str()),
                "{}: {}",
                recipe.name,
                change.key
            );
        }
        // What a row comes from is visible, and each name of a table means something else.
        let shown = row.to_toml();
        assert_eq!(shown.matches(&format!("  # {}", recipe.name)).count(), recipe.keys.len(), "{shown}");
        let table = recipe.name.split('/').next().unwrap();
        let keys: Vec<&str> = shown.lines().map(|line| line.split("  # ").next().unwrap()).collect();
        let content = keys.iter().filter(|line| !line.starts_with("row = ")).fold(String::from(table), |a, b| a + b);
        if let Some(other) = seen.insert(content, recipe.name) {
            // The default of the paper is a row of each part of its tables.
            assert!(recipe.keys.len() <= 1, "{other} and {} are the same", recipe.name);
        }
    }
}

#[test]
fn what_is_said_elsewhere_goes_before_the_row() {
    let row = load(&configs().join("stage2.toml"), &["recipe.row=table2/layer-08", "vra.layers=[3]"]);
    assert_eq!(row.vra.layers, [3]);
    let shown = row.to_toml();
    assert!(shown.contains("layers = [3]\n") && shown.contains("row = \"table2/layer-08\"\n"), "{shown}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my.toml");
    fs::write(&file, "[recipe]\nrow = \"table4/d-residual-before\"\n[residual]\nsource = \"post_projection\"\n")
        .unwrap();
    let config = load(&file, &[]);
    assert_eq!((config.residual.enabled, config.residual.source.name()), (true, "post_projection"));
    // A checkpoint's configuration names the row and every key: it reads back as it is.
    let again = folder.path().join("again.toml");
    fs::write(&again, config.to_toml()).unwrap();
    assert_eq!(load(&again, &[]), config);

    fs::write(&file, "[recipe]\nrow = \"table2/layer-8\"\n").unwrap();
    let error = Config::load(&file, &Overrides::default()).unwrap_err();
    assert_eq!(error.kind.exit_code(), 2);
    assert!(error.to_string().contains("my.toml:2:7") && error.hint.contains("table2/layer-08"), "{error}");
}

#[test]
fn every_file_is_sound_and_known() {
    let mut names = Vec::new();
    for entry in fs::read_dir(configs()).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let config = load(&entry, &[]);
        let name = entry.file_stem().unwrap().to_str().unwrap().to_owned();
        let global_batch = config.train.batch * config.train.accumulation;
        assert_eq!(global_batch, if name == "stage1" { 256 } else { 128 }, "{name}");
        names.push(name);
    }
    names.sort();
    assert_eq!(names, ["stage1", "stage2", "stage2-full"]);
}

/// `configs/README.md` ends with the table of rows; `VIRAL_BLESS=1` writes it.
#[test]
fn the_page_lists_every_row() {
    let mut table = String::from("| `recipe.row` | row | keys |\n| --- | --- | --- |\n");
    for Recipe { name, row, keys } in Recipe::ALL {
        let keys: Vec<String> = keys.iter().map(|(key, value)| format!("`{key}={value}`")).collect();
        table += &format!("| `{name}` | {row} | {} |\n", keys.join(", "));
    }
    let page = configs().join("README.md");
    let text = fs::read_to_string(&page).unwrap();
    let prose = text.split("| `recipe.row`").next().unwrap();
    if std::env::var_os("VIRAL_BLESS").is_some() {
        fs::write(&page, format!("{prose}{table}")).unwrap();
    } else {
        assert_eq!(text, format!("{prose}{table}"), "VIRAL_BLESS=1 cargo test --test program configs writes it");
    }
    for key in Recipe::ALL.iter().flat_map(|recipe| recipe.keys).map(|(key, _)| *key) {
        assert!(SECTIONS.iter().flat_map(|section| section.keys).any(|known| known.path() == key), "{key}");
    }
}

fn load(file: &Path, keys: &[&str]) -> Config {
    let set = keys.iter().map(|key| Assignment::from_set(key).unwrap()).collect();
    let overrides = Overrides { set, ..Overrides::default() };
    Config::load(file, &overrides).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs")
}
