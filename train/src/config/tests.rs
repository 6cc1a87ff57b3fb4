//! What users write, and what they get.

use std::fs;
use std::path::Path;

use super::*;
use crate::error::Kind;

fn parse(source: &str) -> Result<Config> {
    Config::resolve(Path::new("/case/config.toml"), source, &Overrides::default())
}

fn with_set(source: &str, arguments: &[&str]) -> Result<Config> {
    let set = arguments.iter().map(|argument| Assignment::from_set(argument)).collect::<Result<_>>()?;
    Config::resolve(Path::new("/case/config.toml"), source, &Overrides { set, ..Overrides::default() })
}

/// The error has exit code 2 and its text holds every one of `parts`.
#[track_caller]
fn refused(result: Result<Config>, parts: &[&str]) {
    let error = result.expect_err("this must be refused");
    assert_eq!(error.kind, Kind::Config, "{error}");
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    for (name, part) in [("where", &error.place), ("why", &error.why), ("try", &error.hint)] {
        assert!(!part.is_empty(), "no {name} in:\n{text}");
    }
}

#[test]
fn an_empty_file_gives_the_defaults_of_the_paper() {
    let config = parse("").unwrap();
    assert_eq!(config.model.path, Path::new("/case/llava"));
    assert_eq!(config.vra.layers, [16]);
    assert_eq!((config.vra.weight, config.vra.projector_dim), (0.5, 2048));
    assert_eq!((config.lora.r, config.lora.alpha, config.lora.dropout), (128, 256.0, 0.05));
    assert_eq!(config.lora.targets.len(), 7);
    assert_eq!((config.train.lr, config.train.projector_lr), (2e-4, 2e-5));
    assert_eq!((config.train.betas, config.train.eps), ([0.9, 0.999], 1e-8));
    assert_eq!((config.train.batch, config.train.max_length, config.train.seed), (16, 2048, 42));
    assert_eq!(config.train.warmup_ratio, 0.03);
    assert_eq!(config.data.order, Order::GroupByModalityLength);
    assert_eq!(config.output.dir, Path::new("/case/runs/name"));
}

#[test]
fn every_key_can_be_written_and_read() {
    let source = r#"
[recipe]
row = "table2/layer-04"
models = "models"
[model]
path = "m"
vision = "v"
projector = "p"
base = "nf4"
adapter = "a"
[vra]
enabled = true
teacher = "/abs/t"
objective = "relation"
target = "encoder"
layers = [
  1, # the first
  2,
]
weight = 1
weight_schedule = "linear"
weight_end = 0.1
projector_dim = 8
multiple_projectors = true
use_projector = false
projector_frozen = true
only_coco = true
pixel_norm = "inherit"
teacher_size = "own"
position_filter = "bicubic"
[residual]
enabled = false
source = "pre_projection"
layers = [3]
positions = "all"
[ross]
enabled = true
vae = "flux"
weight = 2
layer = 5
masking = "any"
repeats = 2
width = 32
depth = 1
heads = 4
[lora]
r = 4
alpha = 8
dropout = 0
targets = ["q_proj", "down_proj"]
[data]
train = "d.jsonl"
validation = 0.25
images = ""
template = "qwen_2"
qwen_supervise_final_eos = true
image_aspect = "square"
order = "sequential"
on_bad_sample = "skip"
[train]
stage = "finetune"
method = "full"
feature_cache = 7
feature_dir = "features"
feature_dir_limit = 8
epochs = 2
steps = 12
batch = 2
accumulation = 3
lr = 1e-3
projector_lr = 1e-4
schedule = "constant"
warmup_ratio = 0.5
weight_decay = 0.1
betas = [0.5, 0.75]
eps = 1e-6
moments = "f8"
max_grad_norm = 1.5
max_length = 64
precision = "f32"
remat = "none"
seed = 7
save_every = 10
keep_checkpoints = 5
validate_every = 50
[device]
backend = "vulkan"
adapter = "llvm"
tune = "off"
tune_seconds = 60
[output]
dir = "out"
adapter = "best"
"#;
    let config = parse(source).unwrap();
    assert_eq!(config.model.adapter.as_deref(), Some(Path::new("/case/a")));
    assert_eq!(config.vra.teacher, Path::new("/abs/t"));
    assert_eq!(config.vra.layers, [1, 2]);
    assert_eq!(config.data.images, Path::new("/case/"));
    assert_eq!(config.lora.targets, [LoraTarget::QProj, LoraTarget::DownProj]);
    assert_eq!(config.device.adapter.as_deref(), Some("llvm"));
    let assigned = Assignment::from_file(Path::new("c"), source).unwrap();
    assert_eq!(assigned.len(), keys::all().count(), "the text above names every key");
    for key in keys::all() {
        let default = key.path() == "device.backend" || Config::default().get(key) != config.get(key);
        // No configuration can have all of these differ.
        let exempt = ["vra.enabled", "residual.enabled", "train.stage"].contains(&&*key.path());
        assert!(default || exempt, "{} reads as its default", key.path());
    }
}

#[test]
fn validation_is_a_file_or_a_share() {
    let held_out = |argument: &str| with_set("", &[argument]).map(|config| config.data.validation);
    let file = |path: &str| Some(HeldOut::File(path.into()));
    assert_eq!(held_out("data.validation=val.json"), Ok(file("/case/val.json")));
    assert_eq!(held_out("data.validation=\"0.5\""), Ok(file("/case/0.5")));
    assert_eq!(held_out("data.validation=0.5"), Ok(Some(HeldOut::Share(0.5))));
    assert_eq!(held_out("data.validation="), Ok(None));
    for share in ["0", "1", "-0.5", "1.5"] {
        let result = with_set("", &[&format!("data.validation={share}")]);
        refused(result, &["`data.validation`", "above 0 and below 1"]);
    }
    refused(parse("[data]\nvalidation = [1]"), &["or a share such as 0.02"]);
    refused(parse("[output]\nadapter = \"best\""), &["needs `data.validation`", "data.validation = 0.02"]);
}

#[test]
fn a_resolved_configuration_reads_back_as_itself() {
    let config =
        with_set("[vra]\nlayers = [1, 2]", &["train.lr=1e-5", "model.adapter=x", "device.adapter=a\"b"]).unwrap();
    assert_eq!(parse(&config.to_toml()).unwrap(), config);
    assert!(config.to_toml().contains("lr = 1e-5\n"), "{}", config.to_toml());
}

#[test]
fn the_commented_file_is_the_defaults_and_explains_every_key() {
    let text = template();
    assert_eq!(parse(&text).unwrap(), parse("").unwrap());
    for key in keys::all() {
        assert!(text.contains(key.help) && text.contains(&format!("{} = ", key.name)), "{}", key.path());
        assert!(!key.help.contains('\n') && key.help.len() < 110, "{}", key.path());
    }
    assert!(text.contains("bf16  16-bit floats with the range of f32."), "{text}");
}

#[test]
fn unknown_keys_are_named_with_place_and_nearest() {
    refused(parse("[train]\nlr = 1.0\n  bacth = 4\n"), &["`train.bacth`", "/case/config.toml:3:3", "`train.batch`"]);
    refused(parse("[train]\nr = 4"), &["unknown key `train.r`", "did you mean `lora.r`?"]);
    refused(parse("lr = 4"), &["unknown key `lr`", ":1:1", "did you mean `train.lr`?"]);
    refused(parse("[trian]\nlr = 4"), &["unknown section `[trian]`", ":1:2", "did you mean [train]?"]);
    refused(parse("train.bacth = 4"), &["`train.bacth`", ":1:7"]);
    refused(parse("train = 4"), &["`train` is a section"]);
    refused(parse("[[train]]\nlr = 4"), &["`train` is a section"]);
    refused(parse("[zzzzzzzz]\nx = 1"), &["unknown section `[zzzzzzzz]`", "config init"]);
    refused(parse("[train.lr]\nx = 1"), &["`train.lr` cannot be a table", "expected a number"]);
}

#[test]
fn bad_toml_is_reported_with_its_place() {
    refused(parse("[train]\nlr = \n"), &["not valid TOML", "/case/config.toml:2:"]);
    refused(parse("[train]\nlr = 1\nlr = 2\n"), &["not valid TOML", ":3:1", "duplicate"]);
    refused(parse("[train\n"), &["not valid TOML", ":1:"]);
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    refused(parse("[train]\nlr = \"fast\""), &["`train.lr` cannot be \"fast\"", ":2:6", "expected a number"]);
    refused(parse("[train]\nbatch = 1.5"), &["`train.batch` cannot be 1.5", "whole number"]);
    refused(parse("[train]\nbatch = -1"), &["`train.batch` cannot be -1"]);
    refused(parse("[vra]\nlayers = 16"), &["`vra.layers` cannot be 16", "a list in brackets"]);
    refused(parse("[vra]\nlayers = [1, \"x\"]"), &["`vra.layers`", "a list in brackets"]);
    refused(parse("[vra]\nenabled = 1"), &["true or false"]);
    refused(parse("[train]\nbetas = [0.9]"), &["a list of two"]);
    refused(parse("[data]\ntemplate = \"vicuna\""), &["one of \"vicuna_v1\"", "did you mean \"vicuna_v1\"?"]);
    refused(parse("[lora]\ntargets = [\"q\"]"), &["`lora.targets`", "\"q_proj\""]);
}

#[test]
fn numbers_out_of_range_are_refused() {
    refused(parse("[train]\nbatch = 0"), &["`train.batch` cannot be 0", "1 or more", ":2:9"]);
    refused(parse("[train]\nlr = -1"), &["`train.lr` cannot be -1", "0 or more"]);
    refused(parse("[train]\nlr = inf"), &["`train.lr` cannot be inf"]);
    refused(parse("[train]\nlr = nan"), &["`train.lr` cannot be NaN"]);
    refused(parse("[train]\nbetas = [0.9, 1.0]"), &["`train.betas` cannot be 1", "below 1"]);
    refused(parse("[train]\neps = 0"), &["above 0"]);
    refused(parse("[lora]\ndropout = 1"), &["below 1"]);
}

#[test]
fn combinations_are_checked() {
    let mut both = Config::default();
    both.residual.enabled = true;
    let error = both.check_combinations(&|_| String::from("here")).unwrap_err();
    assert!(error.to_string().contains("exclude each other"), "{error}");
    refused(parse("[vra]\nlayers = []"), &["`vra.layers` is empty", ":2:10"]);
    refused(parse("[vra]\nlayers = [3, 3]"), &["`vra.layers` names 3 twice"]);
    refused(parse("[lora]\ntargets = []"), &["`lora.targets` is empty"]);
    refused(parse("[lora]\ntargets = [\"q_proj\", \"q_proj\"]"), &["q_proj twice"]);
    refused(parse("[train]\nepochs = 0"), &["nothing to train"]);
    assert!(parse("[vra]\nenabled = false\nlayers = []").is_ok());
    refused(parse("[vra]\nuse_projector = false"), &["needs `vra.objective` = \"relation\"", ":2:17"]);
    refused(
        parse("[train]\nstage = \"pretrain\""),
        &["`vra.enabled` = true does not go with", "set vra.enabled = false"],
    );
    let residual = "[vra]\nenabled = false\n[residual]\nenabled = true\n";
    assert!(parse(residual).is_ok());
    refused(parse(&format!("{residual}layers = []")), &["`residual.layers` is empty"]);
    refused(parse(&format!("{residual}layers = [2, 2]")), &["`residual.layers` names 2 twice"]);
    let everywhere = format!("{residual}positions = \"all\"\n");
    assert!(parse(&everywhere).is_ok());
    refused(parse(&format!("{everywhere}source = \"pre_projection\"")), &["no features for text tokens"]);
    refused(
        parse(&format!("{residual}[train]\nstage = \"pretrain\"")),
        &["`residual.enabled` = true does not go with"],
    );
    let ross = "[ross]\nenabled = true\n";
    assert!(parse(&format!("{ross}width = 96\nheads = 6")).is_ok());
    assert!(parse("[ross]\nwidth = 7").is_ok(), "nothing reads it");
    refused(
        parse(&format!("{ross}width = 96\nheads = 7")),
        &["`ross.width` = 96 does not go with `ross.heads` = 7", ":3:9"],
    );
    refused(parse(&format!("{ross}width = 6\nheads = 3")), &["a multiple of the heads and of 4"]);
    // Reconstruction goes with everything else.
    assert!(parse(&format!("{residual}{ross}")).is_ok());
    assert!(parse(&format!("[vra]\nenabled = false\n{ross}[train]\nstage = \"pretrain\"")).is_ok());
    assert!(parse("[vra]\nenabled = false\n[train]\nstage = \"pretrain\"\n[lora]\ntargets = []").is_ok());
}

#[test]
fn set_reads_toml_and_bare_words() {
    let config = with_set(
        "",
        &["train.lr=1e-4", "data.template=plain", "vra.layers=[1, 2]", "output.dir=2024", "vra.enabled=true"],
    )
    .unwrap();
    assert_eq!(config.train.lr, 1e-4);
    assert_eq!(config.data.template, Template::Plain);
    assert_eq!(config.vra.layers, [1, 2]);
    assert_eq!(config.output.dir, Path::new("/case/2024"));
    assert_eq!(with_set("", &["model.path=\"x y\""]).unwrap().model.path, Path::new("/case/x y"));
    assert_eq!(with_set("", &[r"model.path=C:\x"]).unwrap().model.path, Path::new(r"/case/C:\x"));
    assert_eq!(with_set("[model]\nadapter = \"a\"", &["model.adapter="]).unwrap().model.adapter, None);
    refused(with_set("", &["train.bacth=1"]), &["unknown key `train.bacth`", "--set train.bacth=1", "`train.batch`"]);
    refused(with_set("", &["train=1"]), &["unknown key `train`"]);
    refused(with_set("", &["train.lr"]), &["not an assignment", "--set train.lr"]);
    refused(with_set("", &["train.lr=fast"]), &["cannot be fast", "--set train.lr=fast"]);
    refused(with_set("", &["vra.layers=[1"]), &["cannot be [1"]);
    refused(with_set("", &["data.template=\nx"]), &["`data.template` cannot be"]);
}

#[test]
fn flags_beat_set_beats_environment_beats_file_beats_default() {
    let file = "[device]\nbackend = \"gl\"";
    let environment = Assignment::from_environment(|name| (name == "WGPU_BACKEND").then(|| "metal".into())).unwrap();
    let set = vec![Assignment::from_set("device.backend=dx12").unwrap()];
    let flags = vec![Assignment::from_flag("--backend", "device.backend", "vulkan").unwrap()];
    let backend = |source: &str, overrides: &Overrides| {
        Config::resolve(Path::new("/c.toml"), source, overrides).unwrap().device.backend
    };
    let mut overrides = Overrides::default();
    assert_eq!(backend("", &overrides), Backend::Auto);
    assert_eq!(backend(file, &overrides), Backend::Gl);
    overrides.environment = environment;
    assert_eq!(backend(file, &overrides), Backend::Metal);
    overrides.set = set;
    assert_eq!(backend(file, &overrides), Backend::Dx12);
    overrides.flags = flags;
    assert_eq!(backend(file, &overrides), Backend::Vulkan);
}

#[test]
fn the_environment_speaks_as_wgpu_does() {
    for (value, expected) in [("vk", Backend::Vulkan), ("Vulkan", Backend::Vulkan), ("gles,dx12", Backend::Gl)] {
        let environment = Assignment::from_environment(|name| (name == "WGPU_BACKEND").then(|| value.into())).unwrap();
        let overrides = Overrides { environment, ..Overrides::default() };
        let config = Config::without_file(Path::new("/"), &overrides).unwrap();
        assert_eq!(config.device.backend, expected, "{value}");
    }
    assert!(Assignment::from_environment(|_| Some(" ".into())).unwrap().is_empty(), "empty variables are unset");
    let environment = Assignment::from_environment(|_| Some("quantum".into())).unwrap();
    let overrides = Overrides { environment, ..Overrides::default() };
    refused(Config::without_file(Path::new("/"), &overrides), &["\"quantum\"", "WGPU_BACKEND", "\"vulkan\""]);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent.toml");
    refused(Config::load(&absent, &Overrides::default()), &["absent.toml", "config init"]);
    refused(Config::load(folder.path(), &Overrides::default()), &["cannot read the configuration"]);
    let binary = folder.path().join("binary.toml");
    fs::write(&binary, [b'a', 0xff]).unwrap();
    refused(Config::load(&binary, &Overrides::default()), &["byte 1 is not UTF-8"]);
}

#[test]
fn missing_inputs_are_named_with_what_belongs_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, "").unwrap();
    let config = Config::load(&file, &Overrides::default()).unwrap();
    let touch = |path: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{}").unwrap();
    };
    let expect = |kind: Kind, parts: &[&str]| {
        let error = config.check_paths().unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        for part in parts {
            assert!(error.to_string().contains(part), "no {part:?} in:\n{error}");
        }
    };
    expect(Kind::Model, &["`model.path`", "llava", "no such folder", "tokenizer.json"]);
    touch("llava/other.json");
    expect(Kind::Model, &["`model.path`", "no config.json"]);
    touch("llava/config.json");
    expect(Kind::Model, &["`vra.teacher`", "dinov2", "no such folder"]);
    // The weight file of a release will do.
    touch("dinov2");
    expect(Kind::Data, &["`data.train`"]);
    fs::remove_file(folder.path().join("dinov2")).unwrap();
    touch("dinov2/config.json");
    expect(Kind::Data, &["`data.train`", "train.json", "no such file", "JSON"]);
    touch("train.json");
    assert_eq!(config.check_paths(), Ok(()));
}

/// `docs/configuration.md` is written by this test when `VIRAL_BLESS` is set.
#[test]
fn the_documentation_lists_every_key() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let expected = reference();
    if std::env::var_os("VIRAL_BLESS").is_some() {
        fs::write(file, &expected).unwrap();
    }
    let found = fs::read_to_string(file).unwrap_or_default();
    assert!(
        found == expected,
        "docs/configuration.md is out of date: VIRAL_BLESS=1 cargo test -p viral-train writes it"
    );
}

fn reference() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         One TOML file describes a run; every key has a default and may be left out. Relative paths start from the \
         folder of the\nfile. `--set section.key=value` changes a key for one run. A flag beats `--set`, which beats the \
         environment, which beats\nthe file. `viral-wgpu config init` writes a file with all keys, `config show` prints \
         what results, `config validate` checks.\n\n\
         This page is made from the table of keys in `train/src/config/keys.rs`.\n",
    );
    for section in SECTIONS {
        text += &format!(
            "\n## `[{}]`\n\n{}\n\n| key | default | meaning |\n| --- | --- | --- |\n",
            section.name, section.help
        );
        for key in section.keys {
            let default =
                Config::default().get(key).map_or("unset".into(), |value| format!("`{}`", render::value_text(&value)));
            text += &format!("| `{}` | {default} | {} |\n", key.name, meaning(key));
        }
    }
    text
}

fn meaning(key: &Key) -> String {
    let limit = if key.limit.text.is_empty() { String::new() } else { format!(" Must be {}.", key.limit.text) };
    let choices =
        key.kind.choices().unwrap_or_default().iter().map(|choice| format!("<br>`{}`: {}", choice.name, choice.help));
    format!("{}{limit}{}", key.help, choices.collect::<String>()).replace('|', "\\|")
}
