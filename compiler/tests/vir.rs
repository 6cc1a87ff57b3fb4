//! File tests: graphs in text form, and what the compiler makes of them.
//!
//! A file in `tests/vir/` begins with comments: what it shows, and which stages (`# show: simplify plan`), optionally for
//! which device (`# target: cpu`, `# target: matrices`; the baseline otherwise). Then comes a graph, and after lines like `---- plan` the
//! graph after a pass or the listing of the plan. `VIRAL_BLESS=1 cargo test -p viral-compiler --test vir` writes these.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use viral_compiler::compile::compile_traced;
use viral_compiler::{Graph, Options};
use viral_shaders::{DeviceClass, Target};

#[test]
fn files_show_what_the_compiler_does() {
    let bless = std::env::var_os("VIRAL_BLESS").is_some_and(|value| value == "1");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vir");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 10);
    let mut failures = String::new();
    for file in files {
        let given = std::fs::read_to_string(&file).unwrap().replace("\r\n", "\n");
        let made = check(&given).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        if bless && made != given {
            std::fs::write(&file, made).unwrap();
        } else if made != given {
            let _ = writeln!(failures, "{}:\n{}", file.display(), difference(&given, &made));
        }
    }
    assert!(failures.is_empty(), "{failures}\nset VIRAL_BLESS=1 if the new output is right");
}

/// The file with its expected part made anew.
fn check(file: &str) -> Result<String, String> {
    let source = file.split("\n---- ").next().unwrap_or(file).trim_end();
    let directive = |key: &str| source.lines().find_map(|line| line.strip_prefix(&format!("# {key}: ")));
    let show: Vec<&str> = directive("show").ok_or("there is no line `# show: ..`")?.split_whitespace().collect();
    let target = match directive("target") {
        None => Target::baseline(),
        Some("cpu") => Target { class: DeviceClass::Cpu, subgroup: Some((8, 8)), ..Target::baseline() },
        Some("matrices") => {
            Target { subgroup: Some((32, 32)), f16: true, cooperative_matrix: Some(16), ..Target::baseline() }
        }
        Some(other) => return Err(format!("unknown target `{other}`")),
    };
    let graph: Graph = source.parse().map_err(|error| format!("{error}"))?;
    let mut stages: Vec<(&str, String)> = Vec::new();
    let options = Options { cooperative: Some(24), ..Options::new(target) };
    let plan = compile_traced(&graph, &options, &mut |stage, graph| {
        stages.push((stage, graph.to_string()));
    });
    stages.push(("plan", plan.map_err(|error| error.to_string())?.to_string()));
    let mut made = format!("{source}\n");
    for stage in show {
        let (_, text) = stages.iter().find(|(name, _)| *name == stage).ok_or(format!("there is no stage `{stage}`"))?;
        let _ = write!(made, "\n---- {stage}\n{text}");
    }
    Ok(made)
}

/// The lines from the first that differs on, in both texts.
fn difference(given: &str, made: &str) -> String {
    let same = given.lines().zip(made.lines()).take_while(|(a, b)| a == b).count();
    let rest = |text: &str, sign: &str| -> String {
        text.lines().skip(same).take(12).map(|line| format!("{sign} {line}\n")).collect()
    };
    format!("line {}\n{}{}", same + 1, rest(given, "-"), rest(made, "+"))
}
