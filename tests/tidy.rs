//! The rules of the repository that no compiler checks: which crate may know what, what is registered where, and that
//! ARCHITECTURE.md speaks of files that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The crates, and which of the others each may depend on: `shaders <- compiler <- runtime <- train`,
/// `compiler <- model <- train`.
const ARROWS: [(&str, &[&str]); 5] = [
    ("shaders", &[]),
    ("compiler", &["shaders"]),
    ("runtime", &["shaders", "compiler"]),
    ("model", &["compiler"]),
    ("train", &["compiler", "runtime", "model"]),
];

/// Words that the code of a crate must not contain, tests aside: what it must not know.
const UNKNOWN: [(&str, &[&str]); 5] = [
    ("shaders", &["wgpu::", "std::fs", ENVIRONMENT, ARGUMENTS, "std::thread", "Instant::", "SystemTime", "println!"]),
    ("compiler", &["wgpu::", "std::fs", ENVIRONMENT, ARGUMENTS, "std::thread", "Instant::", "SystemTime", "println!"]),
    ("runtime", &[ENVIRONMENT, ARGUMENTS, "Instant::", "SystemTime", "println!"]),
    ("model", &["wgpu::", ENVIRONMENT, ARGUMENTS, "Instant::", "SystemTime", "println!"]),
    ("train", &["wgpu::", "@compute"]),
];
const ENVIRONMENT: &str = "env::var";
const ARGUMENTS: &str = "env::args";

/// The files that may hold `unsafe`. Each gives its reasons.
const TRUSTED: [&str; 3] = ["runtime/src/trusted.rs", "runtime/src/host_memory.rs", "model/src/weights/mapping.rs"];

/// Lines of a file of code beyond which it holds more than one idea.
const LONG: usize = 550;

#[test]
fn crates_depend_on_each_other_in_one_direction() {
    let members = manifest(".")["workspace"]["members"].clone();
    let members: BTreeSet<&str> = members.as_array().unwrap().iter().filter_map(toml::Value::as_str).collect();
    let crates = ARROWS.iter().map(|(name, _)| *name);
    assert_eq!(members, crates.chain(["."]).collect(), "ARROWS lists the members of the workspace");
    for (name, allowed) in ARROWS {
        for dependency in dependencies(&manifest(name)) {
            let Some(other) = dependency.strip_prefix("viral-") else { continue };
            assert!(allowed.contains(&other), "{name} must not depend on {other}");
        }
    }
    let root = manifest(".");
    let root: Vec<&String> = root["dependencies"].as_table().unwrap().keys().collect();
    assert_eq!(root, ["viral-train"], "the binary is all that the root package adds");
}

#[test]
fn crates_do_not_know_what_they_must_not() {
    for (name, words) in UNKNOWN {
        for (file, code) in sources(name) {
            for word in words {
                assert!(!code.contains(word), "{file}: `{word}` has no place in {name}");
            }
        }
    }
}

#[test]
fn unsafe_code_is_where_it_is_explained() {
    for (name, _) in ARROWS {
        for (file, code) in sources(name) {
            let is_unsafe = code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
            assert_eq!(is_unsafe, TRUSTED.contains(&file.as_str()), "{file}");
            if is_unsafe {
                let (blocks, reasons) = (code.matches("unsafe {").count(), read(&file).matches("// SAFETY: ").count());
                assert_eq!(blocks, reasons, "{file}: every block says why it is sound");
            }
        }
    }
}

#[test]
fn every_operation_file_is_registered() {
    let text = read("compiler/src/ops/mod.rs");
    let registry = text.rsplit("registry! {").next().unwrap();
    for file in files("compiler/src/ops", "rs") {
        let stem = file.file_stem().unwrap().to_str().unwrap();
        if !["mod", "attr", "rule"].contains(&stem) {
            assert!(
                registry.contains(&format!(" {stem}::")),
                "{stem} is not in the registry of compiler/src/ops/mod.rs"
            );
        }
    }
}

#[test]
fn files_hold_one_idea() {
    let crates = ARROWS.iter().map(|(name, _)| *name);
    let code = crates.flat_map(|name| files(name, "rs")).chain(files("tests", "rs")).chain(files("shaders", "wgsl"));
    for file in code {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= LONG, "{} has {lines} lines", file.display());
    }
}

/// What stands between backticks and looks like a path is one.
#[test]
fn the_architecture_page_names_files_that_exist() {
    let text = read("ARCHITECTURE.md");
    let mut prose = String::new();
    for (index, part) in text.split("```").enumerate() {
        // Examples in fences may show files that are yet to be written.
        prose += if index % 2 == 0 { part } else { "" };
    }
    let quoted = prose.split('`').skip(1).step_by(2);
    let paths = quoted.filter(|text| {
        let is_path = text.contains('/') && !text.contains([' ', '*', '<', 'N']);
        is_path
            && ARROWS
                .iter()
                .map(|(name, _)| *name)
                .chain(["tests", "scripts", "docs"])
                .any(|top| text.strip_prefix(top).is_some_and(|rest| rest.starts_with('/')))
    });
    let mut count = 0;
    for path in paths {
        assert!(root().join(path).exists(), "ARCHITECTURE.md speaks of {path}");
        count += 1;
    }
    assert!(count > 20, "{count} paths");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn manifest(folder: &str) -> toml::Table {
    read(&format!("{folder}/Cargo.toml")).parse().unwrap()
}

/// The names in every table of dependencies: of the crate, of its tests, of its build script, for one platform.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (key, value) in manifest {
        let Some(table) = value.as_table() else { continue };
        if key.ends_with("dependencies") {
            names.extend(table.keys().cloned());
        } else {
            names.extend(dependencies(table));
        }
    }
    names
}

/// Every file below a folder with this extension, in order.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|found| found == extension) {
                found.push(entry);
            }
        }
    }
    found.sort();
    found
}

/// The code of a crate by file, without comments and tests.
fn sources(name: &str) -> BTreeMap<String, String> {
    let mut sources = BTreeMap::new();
    for file in files(&format!("{name}/src"), "rs") {
        let path = file.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        if path.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let lines = code.lines().map(|line| line.split("//").next().unwrap_or(line));
        sources.insert(path, lines.collect::<Vec<_>>().join("\n"));
    }
    sources
}
