use viral_runtime::{AdapterKind, Backend};

use super::*;
use crate::error::Kind;

fn adapter() -> AdapterReport {
    AdapterReport {
        index: 0,
        name: "NVIDIA \"H200\" 141GB\u{1b}[2J".into(),
        backend: Backend::Vulkan,
        kind: AdapterKind::Discrete,
        driver: "NVIDIA 570.1".into(),
        target: Target::baseline(),
        timestamps: true,
        pipeline_cache: true,
        cooperative_matrix: vec![],
        unsuitable: None,
    }
}

fn entry(tunable: &str, class: &str, choice: &str) -> Entry {
    let [tunable, class, choice] = [tunable, class, choice].map(str::to_owned);
    Entry { tunable, class, choice, rule: "the rule's".into(), choice_ms: 0.125, rule_ms: 2.0 }
}

fn record(entries: Vec<Entry>) -> TuningRecord {
    let new = TuningRecord::new(&adapter(), &Target::baseline(), "2026-11-26T12:00:00Z".into());
    TuningRecord { entries, ..new }
}

const CLASS: &str = "nt 1280x512x512 f32 f32";

#[test]
fn a_record_is_read_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = TuningRecord::file(&folder.path().join("tuning"), &adapter());
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("nvidia--h200--141gb--2j-vulkan-") && name.ends_with(".toml"), "{name}");
    assert_eq!(TuningRecord::read(&file), Ok(None));
    for entries in [vec![], vec![entry("tiling", CLASS, "tiles of 64"), entry("parts", "a \"class\"\n", "2")]] {
        let record = record(entries);
        record.write(&file).unwrap();
        assert_eq!(TuningRecord::read(&file).unwrap().as_ref(), Some(&record));
    }
    assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# Kernels") && text.contains("\nchoice_ms = 0.125\nrule_ms = 2.0\n"), "{text}");
    let other = AdapterReport { driver: "NVIDIA 575.2".into(), ..adapter() };
    assert_ne!(TuningRecord::file(folder.path(), &other).file_name(), file.file_name());
}

#[test]
fn a_damaged_file_says_what_is_wrong_where() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.toml");
    let whole = record(vec![entry("tiling", CLASS, "tiles of 64")]).to_toml();
    let cases = [
        (whole[..whole.find("rule_ms").unwrap()].to_owned(), "rule_ms"),
        (whole.replace("format = 1", "format = 9"), "format 9"),
        (whole.replace("driver =", "diver ="), "diver"),
        (whole.replace("choice_ms = 0.125", "choice_ms = \"fast\""), "choice_ms"),
        ("\u{0}\u{1}".into(), ""),
    ];
    for (text, told) in cases {
        std::fs::write(&file, text).unwrap();
        let error = TuningRecord::read(&file).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("x.toml") && text.contains(told) && text.contains("--tune full"), "{told}: {text}");
        assert_eq!(error.kind, Kind::Config);
    }
    std::fs::write(&file, b"\xff\xfe").unwrap();
    assert!(TuningRecord::read(&file).is_err());
    assert_eq!(TuningRecord::read(folder.path()).unwrap_err().kind, Kind::Io);
}

#[test]
fn what_was_measured_elsewhere_does_not_hold_here() {
    let (target, here) = (Target::baseline(), adapter());
    let record = record(vec![]);
    assert_eq!(record.foreign(&here, &target), None);
    let told = |adapter: &AdapterReport| record.foreign(adapter, &target).unwrap_or_default();
    assert!(told(&AdapterReport { driver: "NVIDIA 575.2".into(), ..adapter() }).contains("driver `NVIDIA 570.1`"));
    assert!(told(&AdapterReport { name: "NVIDIA T4".into(), ..adapter() }).contains("`NVIDIA T4`"));
    assert!(told(&AdapterReport { backend: Backend::Dx12, ..adapter() }).contains("backend `vulkan`"));
    let older = TuningRecord { kernels: "0".into(), version: "0.0.9".into(), ..record.clone() };
    let why = older.foreign(&here, &target).unwrap();
    assert!(why.contains("other kernels (viral-wgpu 0.0.9, 0)") && why.contains("2026-11-26"), "{why}");
}

#[test]
fn entries_that_mean_nothing_are_left_out() {
    let record = record(vec![
        entry("tiling", CLASS, "tiles of 64"),
        entry("tiling", CLASS, "tiles of 7"),
        entry("unrolling", CLASS, "8"),
        entry("parts", "a product", "8"),
    ]);
    let (tuning, ignored) = record.tuning(&Target::baseline());
    assert_eq!(tuning.iter().collect::<Vec<_>>(), [["tiling", CLASS, "tiles of 64"]]);
    assert_eq!(ignored.len(), 3, "{ignored:?}");
    assert!(ignored[0].contains("`tiles of 7`") && ignored[0].contains("`tiles of 128`"), "{}", ignored[0]);
    assert!(ignored[1].contains("`unrolling`") && ignored[2].contains("`a product`"), "{ignored:?}");
}

#[test]
fn the_cache_is_asked_only_by_those_who_want_it_and_never_fails() {
    let folder = tempfile::tempdir().unwrap();
    let file = TuningRecord::file(folder.path(), &adapter());
    let mut config = Config::default();
    let choices =
        |config: &Config, folder: Option<&Path>| cached(&adapter(), Target::baseline(), config, folder).tuning.len();
    assert_eq!(choices(&config, Some(folder.path())), 0, "no file");
    record(vec![entry("tiling", CLASS, "tiles of 64")]).write(&file).unwrap();
    for (tune, expected) in [(Tune::Cached, 1), (Tune::Full, 1), (Tune::Off, 0)] {
        config.device.tune = tune;
        assert_eq!((choices(&config, Some(folder.path())), choices(&config, None)), (expected, 0), "{tune:?}");
    }
    config.device.tune = Tune::Cached;
    let record = record(vec![entry("tiling", CLASS, "tiles of 64")]);
    TuningRecord { driver: "another".into(), ..record.clone() }.write(&file).unwrap();
    assert_eq!(choices(&config, Some(folder.path())), 0, "foreign");
    std::fs::write(&file, "damaged").unwrap();
    assert_eq!(choices(&config, Some(folder.path())), 0, "damaged");
}

#[test]
fn what_was_found_is_a_table() {
    let text = summary(40, 61.0, &[entry("tiling", CLASS, "tiles of 64")], 3);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "measured 40 choices of kernels in 1:01, of which 1 can be faster than by rule; 3 were not reached, and rules decide \
         them (device.tune_seconds)"
    );
    assert!(lines[1].ends_with("rule              ms  choice             ms"), "{text}");
    assert!(lines[2].ends_with("the rule's     2.000  tiles of 64     0.125  16.00 times as fast"), "{text}");
    assert_eq!(summary(2, 1.0, &[], 0), "measured 2 choices of kernels in 0:01: the rules' are as fast as any");
}
