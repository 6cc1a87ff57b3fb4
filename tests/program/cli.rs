//! The program as a user meets it: what it prints where, and how it exits.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a call left behind.
struct Call {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Runs the program in `folder`. Graphics settings of the surroundings do not reach it.
fn call(folder: &Path, arguments: &[&str]) -> Call {
    call_with(folder, arguments, &[])
}

fn call_with(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Call {
    let mut command = crate::program();
    for name in ["WGPU_BACKEND", "WGPU_ADAPTER_NAME", "RUST_LOG", "RUST_BACKTRACE"] {
        command.env_remove(name);
    }
    let output = command.current_dir(folder).args(arguments).envs(environment.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Call { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The call failed with this code, its results are empty, and its message holds every one of `parts`.
#[track_caller]
fn fails(call: &Call, code: i32, parts: &[&str]) {
    assert_eq!(call.code, code, "{}{}", call.stdout, call.stderr);
    assert_eq!(call.stdout, "", "an error is no result");
    assert!(call.stderr.starts_with("error: "), "{}", call.stderr);
    for part in parts {
        assert!(call.stderr.contains(part), "no {part:?} in:\n{}", call.stderr);
    }
}

#[track_caller]
fn succeeds(call: &Call) {
    assert_eq!(call.code, 0, "{}{}", call.stdout, call.stderr);
}

#[test]
fn help_is_a_result_and_misuse_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let help = call(folder.path(), &["--help"]);
    succeeds(&help);
    for part in ["init", "devices", "config", "Examples:", "Exit codes:", "WGPU_BACKEND", "NO_COLOR"] {
        assert!(help.stdout.contains(part), "no {part} in:\n{}", help.stdout);
    }
    assert_eq!(help.stderr, "");
    succeeds(&call(folder.path(), &["--version"]));
    assert_eq!(call(folder.path(), &[]).code, 2);
    fails(&call(folder.path(), &["confg"]), 2, &["confg", "config"]);
    fails(&call(folder.path(), &["config", "show", "--nope"]), 2, &["--nope"]);
}

#[test]
fn configurations_are_written_shown_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    succeeds(&call(here, &["config", "init", "my.toml"]));
    let written = fs::read_to_string(here.join("my.toml")).unwrap();
    assert_eq!(call(here, &["config", "init", "-"]).stdout, written);
    fails(&call(here, &["config", "init", "my.toml"]), 2, &["my.toml", "never overwritten"]);

    let shown = call(here, &["config", "show", "my.toml", "--set", "train.lr=1e-3"]);
    succeeds(&shown);
    assert!(shown.stdout.contains("\nlr = 0.001\n"), "{}", shown.stdout);
    assert_eq!(shown.stderr, "");
    fs::write(here.join("resolved.toml"), &shown.stdout).unwrap();
    assert_eq!(call(here, &["config", "show", "resolved.toml"]).stdout, shown.stdout);
    succeeds(&call(here, &["config", "show"]));
}

#[test]
fn mistakes_in_a_configuration_are_pointed_at() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let cases = [
        ("[train]\nbacth = 4\n", vec!["unknown key `train.bacth`", "bad.toml:2:1", "`train.batch`"]),
        ("[trian]\nbatch = 4\n", vec!["unknown section `[trian]`", "bad.toml:1:2", "[train]"]),
        ("[train\nbatch = 4\n", vec!["not valid TOML", "bad.toml:1:"]),
        ("[train]\nlr = \"high\"\n", vec!["`train.lr` cannot be \"high\"", "bad.toml:2:6", "a number"]),
        ("[train]\nbatch = 0\n", vec!["`train.batch` cannot be 0", "1 or more"]),
        (
            "[train]\nprecision = \"half\"\n",
            vec!["`train.precision` cannot be \"half\"", "one of \"f32\", \"bf16\", \"f16\""],
        ),
    ];
    for (source, parts) in cases {
        fs::write(here.join("bad.toml"), source).unwrap();
        fails(&call(here, &["config", "validate", "bad.toml"]), 2, &parts);
    }
    fails(&call(here, &["config", "validate", "absent.toml"]), 2, &["absent.toml", "config init"]);
    fails(&call(here, &["config", "show", "--set", "train.bacth=1"]), 2, &["--set train.bacth=1", "`train.batch`"]);
    fails(&call(here, &["config", "show", "--set", "train.lr"]), 2, &["section.key=value"]);
}

#[test]
fn what_a_configuration_names_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    succeeds(&call(here, &["init", "tiny"]));
    let validate = |set: &str| call(here, &["config", "validate", "tiny/config.toml", "--set", set]);
    succeeds(&validate("train.steps=2"));
    fails(&validate("model.path=gone"), 4, &["`model.path`", "tiny/gone", "tokenizer.json"]);
    fails(&validate("vra.teacher=gone"), 4, &["`vra.teacher`", "tiny/gone", "config.json"]);
    fails(&validate("model.adapter=gone"), 4, &["`model.adapter`", "adapter_config.json"]);
    fails(&validate("data.train=gone.json"), 3, &["`data.train`", "gone.json", "JSON"]);
}

#[test]
fn a_preset_is_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let written = call(here, &["init", "a", "--preset", "llava-1.5-7b"]);
    succeeds(&written);
    assert_eq!(written.stdout.trim(), Path::new("a").join("config.toml").display().to_string());
    assert!(here.join("a/llava/config.json").is_file());
    fails(&call(here, &["init", "a"]), 2, &["not empty"]);
    fails(&call(here, &["init", "b", "--preset", "gpt"]), 2, &["gpt", "tiny"]);
}

#[test]
fn flags_beat_set_beats_environment_beats_file() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("c.toml"), "[device]\nbackend = \"gl\"\n").unwrap();
    let backend = |arguments: &[&str], environment: &[(&str, &str)]| {
        let arguments = [&["config", "show", "c.toml"], arguments].concat();
        let shown = call_with(here, &arguments, environment).stdout;
        shown.lines().find_map(|line| line.strip_prefix("backend = ")).unwrap().to_owned()
    };
    let environment = [("WGPU_BACKEND", "metal")];
    let set = ["--set", "device.backend=dx12"];
    assert_eq!(backend(&[], &[]), "\"gl\"");
    assert_eq!(backend(&[], &environment), "\"metal\"");
    assert_eq!(backend(&set, &environment), "\"dx12\"");
    assert_eq!(backend(&[&set[..], &["--backend", "vulkan"]].concat(), &environment), "\"vulkan\"");
}

#[test]
fn the_doctor_finds_nothing_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let text = call(folder.path(), &["doctor", "--family", "rows", "--family", "cooperative-products"]);
    succeeds(&text);
    let rows = text.stdout.lines().find(|line| line.starts_with("rows ")).unwrap();
    assert!(rows.ends_with(" right") && text.stdout.contains("\nCooperative matrices: "), "{}", text.stdout);
    assert!(!text.stdout.contains("\nattention "), "{}", text.stdout);
    let report = call(folder.path(), &["doctor", "--family", "rows", "--json"]);
    succeeds(&report);
    let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    let family = &report["families"][0];
    assert_eq!((&family["name"], family["failures"].as_array().unwrap().len()), (&serde_json::json!("rows"), 0));
    assert!(family["cases"].as_u64().unwrap() > 5 && family["kernels"].as_array().unwrap().len() > 5, "{family}");
    fails(&call(folder.path(), &["doctor", "--family", "row"]), 2, &["rows"]);
}

#[test]
fn devices_that_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fails(&call(here, &["devices", "--backend", "cuda"]), 2, &["cuda", "vulkan"]);
    fails(&call_with(here, &["devices"], &[("WGPU_BACKEND", "cuda")]), 2, &["WGPU_BACKEND", "cuda", "vulkan"]);
    fails(&call(here, &["devices", "--adapter", "no such adapter"]), 5, &[]);
    let foreign = if cfg!(target_os = "macos") { "dx12" } else { "metal" };
    fails(&call(here, &["devices", "--backend", foreign]), 5, &["no device", foreign, "--backend"]);
}

#[test]
fn names_from_outside_cannot_control_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("c.toml"), "[train]\n\"\\u001b[2J\\nx\" = 1\n").unwrap();
    let refused = call(folder.path(), &["config", "validate", "c.toml"]);
    fails(&refused, 2, &["\\u{1b}[2J\\nx"]);
    assert!(!refused.stderr.contains('\u{1b}'), "no colours off a terminal either: {:?}", refused.stderr);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let program = env!("CARGO_BIN_EXE_viral-wgpu");
    let mut child = Command::new(program).args(["config", "init", "-"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_reference_cases_are_valid() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut checked = 0;
    for entry in fs::read_dir(&fixtures).unwrap() {
        let config = entry.unwrap().path().join("config.toml");
        if config.is_file() {
            succeeds(&call(&fixtures, &["config", "validate", &config.display().to_string()]));
            checked += 1;
        }
    }
    assert!(checked >= 5, "{checked} cases");
}

/// A tiny model with its data, in `folder/tiny`.
fn tiny(folder: &Path) {
    succeeds(&call(folder, &["init", "tiny"]));
}

#[test]
fn a_run_leaves_its_files_and_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    tiny(here);
    let arguments = ["train", "tiny/config.toml", "--out", "out", "--set", "train.steps=3", "--set", "train.batch=2"];
    let trained = call(here, &arguments);
    succeeds(&trained);
    for part in ["3 steps", "language", "adapter", "metrics.jsonl", "loss.svg"] {
        assert!(trained.stdout.contains(part), "no {part} in:\n{}", trained.stdout);
    }
    assert!(trained.stderr.contains("device memory") && trained.stderr.contains("step 3/3"), "{}", trained.stderr);
    for file in ["run.json", "metrics.jsonl", "loss.svg", "adapter/adapter_config.json"] {
        assert!(here.join("out").join(file).is_file(), "no {file}");
    }
    assert!(fs::read_to_string(here.join("out/run.json")).unwrap().contains("\"status\": \"finished\""));
    assert_eq!(fs::read_to_string(here.join("out/metrics.jsonl")).unwrap().lines().count(), 3);

    fails(&call(here, &arguments), 2, &["a finished run", "out", "--out"]);
    let quiet =
        call(here, &["-q", "train", "tiny/config.toml", "--out", "again", "--set", "train.steps=1", "--profile"]);
    succeeds(&quiet);
    assert_eq!(quiet.stderr, "");
    let trace = fs::read_to_string(here.join("again/trace.json")).unwrap();
    let trace: serde_json::Value = serde_json::from_str(&trace).unwrap();
    let spans = trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X");
    assert!(spans.clone().any(|span| span["cat"] == "host"));
    // Only a device with a clock has more to tell.
    if !quiet.stdout.contains("has no clock") {
        let in_layer = |span: &serde_json::Value| span["name"].as_str().unwrap().contains(" layers.0.self_attn");
        assert!(spans.clone().any(|span| span["cat"] == "device" && in_layer(span)));
        assert!(quiet.stdout.contains("GFLOP/s") && quiet.stdout.contains("layers.*.self_attn"), "{}", quiet.stdout);
    }
}

#[test]
fn kernels_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let measured =
        call(folder.path(), &["bench", "kernels", "--preset", "small", "--filter", "lora", "--json", "--budget", "1"]);
    succeeds(&measured);
    let report: serde_json::Value = serde_json::from_str(&measured.stdout).unwrap();
    assert!(report["peak_gflops"].as_f64().unwrap() > 0.0 && report["peak_gbytes"].as_f64().unwrap() > 0.0);
    let (rows, skipped) = (report["rows"].as_array().unwrap(), report["skipped"].as_array().unwrap());
    assert_eq!(rows.len() + skipped.len(), 4, "{report:#}");
    assert!(rows.iter().all(|row| row["gflops"].as_f64().unwrap() > 0.0 && row["kind"] == "product"), "{report:#}");
    fails(&call(folder.path(), &["bench", "kernels", "--preset", "gpt"]), 2, &["gpt", "small"]);
}

#[test]
fn steps_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ["--set", "train.batch=1", "--set", "model.base=nf4", "--set", "train.moments=f8"];
    let measured = call(
        folder.path(),
        &[&["bench", "step", "--preset", "tiny", "--steps", "1", "--json"], &settings[..]].concat(),
    );
    succeeds(&measured);
    let report: serde_json::Value = serde_json::from_str(&measured.stdout).unwrap();
    assert_eq!(report["base"], "nf4");
    for (row, alignment) in report["rows"].as_array().unwrap().iter().zip([true, false]) {
        let step = &row["step"];
        assert_eq!((&row["alignment"], &step["planned"]["shape"]["batch"]), (&alignment.into(), &1.into()));
        assert!(step["tokens_per_second"].as_f64().unwrap() > 0.0 && step["losses"].as_array().unwrap().len() == 2);
        let (held, planned) = (step["device_bytes"].as_f64(), step["planned"]["memory"]["total"].as_f64());
        assert!((held.unwrap() / planned.unwrap() - 1.0).abs() < 0.05, "{report:#}");
    }
}

#[test]
fn two_processes_cannot_share_a_run_folder() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    tiny(here);
    fs::create_dir(here.join("out")).unwrap();
    let lock = fs::File::create(here.join("out/.lock")).unwrap();
    lock.lock().unwrap();
    let arguments = ["train", "tiny/config.toml", "--out", "out", "--set", "train.steps=1"];
    fails(&call(here, &arguments), 10, &["in use", "out", "--out"]);
    drop(lock);
    fs::write(here.join("out/.lock"), "4294967295").unwrap();
    let trained = call(here, &arguments);
    succeeds(&trained);
    assert!(trained.stderr.contains("process 4294967295 left without finishing"), "{}", trained.stderr);
}

#[test]
fn a_run_that_cannot_begin_says_why_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    tiny(here);
    let train = |set: &str| call(here, &["train", "tiny/config.toml", "--out", "out", "--set", set]);
    fails(&train("model.path=gone"), 4, &["`model.path`", "gone"]);
    fails(&train("data.train=gone.json"), 3, &["gone.json"]);
    fails(&train("vra.layers=[99]"), 2, &["99", "layers"]);
    fails(&train("device.adapter=nothing like it"), 5, &["nothing like it"]);
    fails(&train("device.backend=cuda"), 2, &["`device.backend`", "cuda"]);

    let weights = here.join("tiny/llava/model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    fails(&train("train.steps=1"), 4, &["model.safetensors", "truncated"]);
    fs::write(&weights, "<!DOCTYPE html><html>not found</html>").unwrap();
    fails(&train("train.steps=1"), 4, &["model.safetensors", "not a weight file"]);
    fs::write(&weights, &whole).unwrap();

    fs::write(here.join("tiny/train.json"), "[{\"id\": 1,").unwrap();
    fails(&train("train.steps=1"), 3, &["train.json", "JSON"]);
    assert!(!here.join("out").exists(), "a run that did not begin leaves no folder");
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    tiny(here);
    let weights = here.join("tiny/llava/model.safetensors");
    let whole = fs::read(&weights).unwrap();
    let train = || call(here, &["train", "tiny/config.toml", "--out", "out", "--set", "train.steps=1"]);
    // Changes of equal length in the header leave the rest of the file in place.
    let change = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = whole.windows(from.len()).position(|window| window == from.as_bytes()).expect("the header has it");
        let mut changed = whole.clone();
        changed[at..at + to.len()].copy_from_slice(to.as_bytes());
        fs::write(&weights, changed).unwrap();
    };
    change("layers.1.input_layernorm.weight", "layers.1.imput_layernorm.weight");
    let renamed = train();
    fails(&renamed, 4, &["layers.1.input_layernorm.weight", "layers.1.imput_layernorm.weight"]);
    change("layers.1.mlp.up_proj.weight", "layers.7.mlp.up_proj.weight");
    fails(&train(), 4, &["layers.1.mlp.up_proj.weight", "layers.7.mlp.up_proj.weight"]);
    let header = String::from_utf8_lossy(&whole[8..4096]).into_owned();
    let entry = header.split("language_model.model.layers.0.mlp.up_proj.weight").nth(1).expect("a known tensor");
    let shape = entry.split("\"shape\":[").nth(1).and_then(|rest| rest.split(']').next()).expect("its shape");
    let (rows, columns) = shape.split_once(',').expect("a matrix");
    // The first matrix of this shape, whichever it is, is transposed.
    change(&format!("\"shape\":[{rows},{columns}]"), &format!("\"shape\":[{columns},{rows}]"));
    fails(&train(), 4, &["shape", &format!("[{columns}, {rows}]"), &format!("[{rows}, {columns}]")]);
    assert!(!here.join("out").exists());
}

#[test]
fn samples_that_cannot_teach_are_named_or_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    tiny(here);
    fs::write(here.join("tiny/images/broken.png"), "not a picture").unwrap();
    let record = |id: &str, image: &str, answer: &str| {
        format!(
            r#"{{"id": "{id}", "image": "{image}", "conversations": [{{"from": "human", "value": "<image>\nWhat?"}}, {{"from": "gpt", "value": "{answer}"}}]}}"#
        )
    };
    let good = record("good", "000.png", "A square.");
    let train = |bad: &str, policy: &str| {
        fs::write(here.join("tiny/train.json"), format!("[{good}, {bad}, {good}]")).unwrap();
        let policy = format!("data.on_bad_sample={policy}");
        let arguments =
            ["train", "tiny/config.toml", "--out", "out", "--dry-run", "--set", "train.steps=1", "--set", &policy];
        call(here, &arguments)
    };
    let unsupervised = r#"{"id": "mute", "conversations": [{"from": "human", "value": "Hello?"}]}"#;
    for (bad, parts) in [
        (record("lost", "gone.png", "A square."), vec!["lost", "gone.png"]),
        (record("torn", "broken.png", "A square."), vec!["torn", "broken.png"]),
        (unsupervised.to_owned(), vec!["mute", "supervised"]),
    ] {
        fails(&train(&bad, "fail"), 3, &[&parts[..], &["train.json", "record 1 (counted from 0)"]].concat());
        succeeds(&train(&bad, "skip"));
    }
}

#[test]
fn plans_and_dumps_need_no_device() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    succeeds(&call(here, &["init", "tiny"]));
    fs::remove_file(here.join("tiny/llava/model.safetensors")).unwrap();
    let environment = [("VK_DRIVER_FILES", "/nowhere"), ("VIRAL_SOFTWARE_VULKAN", "off")];
    let plan = call_with(here, &["plan", "tiny/config.toml"], &environment);
    succeeds(&plan);
    for part in ["device memory", "activations", "trained parameters", "gemm"] {
        assert!(plan.stdout.contains(part), "no {part} in:\n{}", plan.stdout);
    }
    // A preset needs no file at all; --set changes its micro-batch, and a stated roof says how long a step takes.
    let smaller = ["--set", "train.max_length=64", "--gflops", "1000", "--gbytes", "100", "--json"];
    let preset = call_with(
        here,
        &[&["plan", "--preset", "tiny", "--set", "train.batch=2"], &smaller[..]].concat(),
        &environment,
    );
    succeeds(&preset);
    let planned: serde_json::Value = serde_json::from_str(&preset.stdout).unwrap();
    assert_eq!((planned["shape"]["batch"].as_u64(), planned["shape"]["tokens"].as_u64()), (Some(2), Some(64)));
    let memory = |class: &str| planned["memory"][class].as_u64().unwrap();
    let classes = ["frozen_weights", "trained", "activations", "inputs_and_results", "transfers"];
    assert_eq!(memory("total"), classes.iter().map(|class| memory(class)).sum::<u64>());
    assert!(planned["expected"]["tokens_per_second"].as_f64().unwrap() > 0.0, "{planned:#}");
    fails(&call_with(here, &["plan"], &environment), 2, &["--preset"]);
    fails(
        &call_with(here, &["plan", "--preset", "tiny", "--gflops", "0", "--gbytes", "1"], &environment),
        2,
        &["above zero"],
    );
    let dumped = call_with(here, &["dump", "tiny/config.toml", "--out", "dumped"], &environment);
    succeeds(&dumped);
    assert!(dumped.stdout.lines().count() > 10);
    assert!(dumped.stdout.lines().all(|file| here.join(file).is_file()), "{}", dumped.stdout);
}

/// A cache of its own for calls that find their driver all the same, and the variables that name it.
#[cfg(unix)]
fn cache(folder: &Path) -> [(&'static str, String); 2] {
    let cache = folder.join("cache");
    fs::create_dir(&cache).unwrap();
    let driver = std::env::var("VK_DRIVER_FILES").unwrap_or_default();
    let is_ours =
        |folder: &&Path| folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("software-vulkan"));
    if let Some(ours) = Path::new(&driver).ancestors().find(is_ours) {
        std::os::unix::fs::symlink(ours, cache.join(ours.file_name().unwrap())).unwrap();
    }
    // A driver of the user's own choice stays.
    let driver = if fs::read_dir(&cache).unwrap().count() > 0 { String::new() } else { driver };
    [("VIRAL_CACHE_DIR", cache.display().to_string()), ("VK_DRIVER_FILES", driver)]
}

#[cfg(unix)]
#[test]
fn kernels_are_measured_once_and_used_until_somebody_says_no() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    tiny(here);
    let cache = cache(here);
    let environment: Vec<(&str, &str)> = cache.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let train = |out: &str, tune: &[&str]| {
        let settings = ["--set", "train.steps=1", "--set", "train.batch=1", "--set", "device.tune_seconds=1"];
        call_with(here, &[&["train", "tiny/config.toml", "--out", out], &settings[..], tune].concat(), &environment)
    };
    let measured = train("full", &["--tune", "full"]);
    succeeds(&measured);
    for part in ["measuring kernels 1/", "measured ", "wrote "] {
        assert!(measured.stderr.contains(part), "no {part} in:\n{}", measured.stderr);
    }
    let tuning = here.join("cache/tuning");
    let file = fs::read_dir(&tuning).unwrap().next().unwrap().unwrap().path();
    let written = fs::read_to_string(&file).unwrap();
    let (head, _) = written.split_once("[[choice]]").unwrap_or((&written, ""));
    // Which kernels are faster here and now nobody knows; so one choice is made up. It fits any product and any device.
    let class = "forward 1x1/1 64x64 width 4 f32";
    let choice = format!(
        "[[choice]]\ntunable = \"attention\"\nclass = \"{class}\"\nchoice = \"products\"\nrule = \"fused\"\n\
         choice_ms = 1.0\nrule_ms = 2.0\n"
    );
    let one = format!("{}\n\n{choice}", head.trim_end());
    fs::write(&file, &one).unwrap();
    for (out, tune, used) in [("cached", &[][..], true), ("off", &["--tune", "off"], false)] {
        let trained = train(out, tune);
        succeeds(&trained);
        assert_eq!(trained.stderr.contains("1 kernels are chosen as measured on"), used, "{}", trained.stderr);
        assert_eq!(fs::read_to_string(here.join(out).join("tuning.toml")).ok(), used.then(|| one.clone()));
    }
    // What is wrong with the file is said, and the rules go on.
    for (text, told) in [
        (
            one.replace("choice = \"products\"", "choice = \"splits\""),
            "an entry of the record of measured kernels is ignored",
        ),
        (one.replace("kernels = \"", "kernels = \"0"), "other kernels"),
        (one[..one.len() / 2].to_owned(), "damaged"),
    ] {
        fs::write(&file, text).unwrap();
        let here_and_now = ["plan", "--preset", "tiny", "--adapter", "0", "--gflops", "1", "--gbytes", "1"];
        let planned = call_with(here, &here_and_now, &environment);
        succeeds(&planned);
        assert!(planned.stderr.contains(told), "no {told} in:\n{}", planned.stderr);
    }
    fails(&call(here, &["train", "tiny/config.toml", "--tune", "always"]), 2, &["always", "cached"]);
}
