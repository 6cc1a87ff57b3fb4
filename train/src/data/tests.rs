//! The whole data pipeline over files: every defect, both policies, threads.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use viral_model::text::{Encoded, IGNORED, IMAGE};

use super::*;
use crate::config::{Config, OnBadSample, Order, Overrides};
use crate::engine::Bundle;
use crate::error::{Error, Kind};

type TestResult = Result<(), Box<dyn StdError>>;

const GEOMETRY: Geometry = Geometry { visual_tokens: 4, max_length: 12, image_side: 2 };

/// One token a word; answers are supervised. Pixels are the picture's first pixel, repeated.
struct Words;

impl Prepare for Words {
    fn encode(&self, record: &Record) -> Result<Encoded, (Rule, String)> {
        let mut encoded = Encoded { ids: vec![1], labels: vec![IGNORED] };
        for turn in &record.turns {
            for word in turn.text.split_whitespace() {
                let id = if word == "<image>" { IMAGE } else { word.len() as i64 };
                encoded.ids.push(id);
                encoded.labels.push(if turn.role == Role::Assistant { id } else { IGNORED });
            }
        }
        if record.turns.len() > 4 { Err((Rule::Template, "more than two rounds".into())) } else { Ok(encoded) }
    }

    fn pixels(&self, file: &Path) -> Result<Vec<f32>, (Rule, String)> {
        let picture = image::open(file).map_err(|error| (Rule::ImageBroken, error.to_string()))?.to_rgb8();
        Ok(vec![f32::from(picture.get_pixel(0, 0).0[0]); 12])
    }
}

/// A folder with a dataset file and pictures.
struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new() -> std::io::Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::create_dir(dir.path().join("images"))?;
        Ok(Self { dir })
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("train.json")
    }

    fn picture(&self, name: &str, grey: u8) -> Result<(), image::ImageError> {
        image::RgbImage::from_pixel(3, 2, image::Rgb([grey; 3])).save(self.dir.path().join("images").join(name))
    }

    fn write(&self, text: impl AsRef<[u8]>) -> std::io::Result<()> {
        fs::write(self.file(), text)
    }

    fn open(&self, on_bad: OnBadSample) -> Result<Dataset, Error> {
        Dataset::open(&self.file(), &self.dir.path().join("images"), on_bad)
    }

    fn measured(&self, on_bad: OnBadSample) -> Result<Dataset, Error> {
        let mut dataset = self.open(on_bad)?;
        dataset.measure(&Words, GEOMETRY)?;
        Ok(dataset)
    }
}

fn qa(id: &str, image: Option<&str>, question: &str, answer: &str) -> Value {
    let mut record = json!({"id": id, "conversations": [
        {"from": "human", "value": question}, {"from": "gpt", "value": answer}]});
    if let Some(image) = image {
        record["image"] = json!(image);
    }
    record
}

/// Twelve sound records: every third is text only.
fn sound(fixture: &Fixture) -> Result<Vec<Value>, image::ImageError> {
    (0..12u8)
        .map(|i| {
            let name = format!("{i}.png");
            fixture.picture(&name, 10 * i)?;
            let answer = vec!["yes"; 1 + usize::from(i) % 4].join(" ");
            Ok(match i % 3 {
                2 => qa(&i.to_string(), None, "why oh why", &answer),
                _ => qa(&i.to_string(), Some(&name), "<image> what", &answer),
            })
        })
        .collect()
}

fn jsonl(records: &[Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

#[test]
fn both_layouts_give_the_same_records() -> TestResult {
    let fixture = Fixture::new()?;
    let records = sound(&fixture)?;
    let mut seen = Vec::new();
    for text in [serde_json::to_string_pretty(&records)?, serde_json::to_string(&records)?, jsonl(&records)] {
        fixture.write(text)?;
        let dataset = fixture.measured(OnBadSample::Fail)?;
        assert_eq!(dataset.len(), 12);
        assert!(dataset.skipped().is_empty());
        let read = (0..12).map(|position| dataset.record(position)).collect::<Result<Vec<_>, _>>()?;
        seen.push((read, dataset.modality_lengths(), dataset.shapes().to_vec()));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
    assert_eq!(seen[0].1[..4], [3, 4, -6, 6]);
    assert_eq!(seen[0].2[1], SampleShape { tokens: 8, visual: 4, tiles: 0, targets: 2, before: 5 });
    Ok(())
}

#[test]
fn a_dataset_is_divided_by_the_seed() -> TestResult {
    let fixture = Fixture::new()?;
    fixture.write(jsonl(&sound(&fixture)?))?;
    let ids = |dataset: &Dataset| -> Result<Vec<String>, Error> {
        (0..dataset.len()).map(|at| Ok(dataset.record(at)?.id.unwrap_or_default())).collect()
    };
    let divided = |share, seed| -> Result<_, Error> {
        let mut rest = fixture.measured(OnBadSample::Fail)?;
        let whole = rest.fingerprint()?;
        let taken = rest.split(share, seed)?;
        assert!(taken.fingerprint()? != rest.fingerprint()? && rest.fingerprint()? != whole);
        assert_eq!((taken.len(), rest.len()), (taken.shapes().len(), rest.shapes().len()));
        Ok((ids(&taken)?, ids(&rest)?))
    };
    let (taken, rest) = divided(0.25, 1)?;
    assert_eq!((taken.len(), rest.len()), (3, 9));
    let mut all: Vec<usize> = taken.iter().chain(&rest).map(|id| id.parse()).collect::<Result<_, _>>()?;
    assert!([&taken, &rest].iter().all(|ids| ids.is_sorted_by_key(|id| id.parse::<usize>().ok())));
    all.sort_unstable();
    assert!(all.into_iter().eq(0..12));
    assert_eq!(divided(0.25, 1)?, (taken.clone(), rest));
    assert!(divided(0.25, 2)?.0 != taken);
    // Neither part is empty.
    assert_eq!((divided(0.001, 1)?.0.len(), divided(0.999, 1)?.1.len()), (1, 1));
    fixture.write(jsonl(&sound(&fixture)?[..1]))?;
    let error = fixture.measured(OnBadSample::Fail)?.split(0.5, 1).err().ok_or("one record was divided")?;
    assert!(error.kind == Kind::Data && error.to_string().contains("data.validation"), "{error}");
    Ok(())
}

/// Sound records around one with a defect: the defect is named with file, record, id, rule and hint, and skipping
/// leaves exactly that record out.
#[test]
fn every_defect_is_found_and_can_be_skipped() -> TestResult {
    let fixture = Fixture::new()?;
    let images = fixture.dir.path().join("images");
    let clean = sound(&fixture)?;
    fs::write(images.join("page.png"), "<html>")?;
    fs::write(fixture.dir.path().join("secret.png"), "x")?;
    fixture.picture("ok.png", 1)?;
    let long = "word ".repeat(20);
    let mut cases = vec![
        (json!("text"), Rule::WrongType),
        (json!({"id": "bad", "conversations": {}}), Rule::WrongType),
        (json!({"id": "bad", "conversations": [{"from": "user", "value": "x"}]}), Rule::UnknownRole),
        (qa("bad", Some("nowhere.png"), "<image> x", "y"), Rule::ImageMissing),
        (qa("bad", Some("page.png"), "<image> x", "y"), Rule::ImageBroken),
        (qa("bad", Some("../secret.png"), "<image> x", "y"), Rule::ImageOutsideRoot),
        (qa("bad", Some("/etc/hostname"), "<image> x", "y"), Rule::ImageOutsideRoot),
        (qa("bad", None, "<image> x", "y"), Rule::TagWithoutImage),
        (qa("bad", Some("ok.png"), "x", "y"), Rule::ImageWithoutTag),
        (qa("bad", Some("ok.png"), "<image> x", "y <image>"), Rule::SeveralImageTags),
        (qa("bad", None, "x", ""), Rule::NoSupervisedToken),
        (qa("bad", None, &long, "y"), Rule::NoSupervisedToken),
        (qa("bad", Some("ok.png"), "<image> 2 3 4 5 6 7 8", "y"), Rule::NoSupervisedToken),
    ];
    let mut twice = qa("bad", None, "x", "y");
    twice["conversations"] = json!([{"from": "human", "value": "x"}, {"from": "human", "value": "x"}]);
    cases.push((twice, Rule::RolesNotAlternating));
    let mut many = qa("bad", None, "x", "y");
    let turn = |i| json!({"from": if i % 2 == 0 { "human" } else { "gpt" }, "value": "x"});
    many["conversations"] = (0..6).map(turn).collect();
    cases.push((many, Rule::Template));

    for (bad, rule) in cases {
        let mut records = clean.clone();
        records.insert(5, bad.clone());
        for text in [serde_json::to_string_pretty(&records)?, jsonl(&records)] {
            fixture.write(text)?;
            let error = match fixture.measured(OnBadSample::Fail) {
                Err(error) => error,
                Ok(_) => panic!("{bad} was accepted"),
            };
            assert_eq!(error.kind, Kind::Data);
            assert!(error.what.contains(rule.name()), "{rule}: {error}");
            assert!(error.place.contains("train.json:") && error.place.contains("record 5"), "{rule}: {error}");
            assert!(!bad.is_object() || error.place.contains("`bad`"), "{rule}: {error}");
            assert!(!error.why.is_empty() && error.hint == rule.hint(), "{rule}: {error}");

            let dataset = fixture.measured(OnBadSample::Skip)?;
            assert_eq!(dataset.len(), 12, "{rule}");
            assert_eq!(dataset.shapes().len(), 12, "{rule}");
            let skipped: Vec<_> = dataset.skipped().iter().map(|d| (d.place.record, d.rule)).collect();
            assert_eq!(skipped, [(5, rule)]);
        }
    }
    Ok(())
}

#[test]
fn broken_json_names_line_column_and_record() -> TestResult {
    let fixture = Fixture::new()?;
    let text = serde_json::to_string_pretty(&sound(&fixture)?)?;
    // A quote is lost in the third record.
    let at = text.match_indices("\"why oh why\"").next().map(|(at, _)| at).ok_or("no such record")?;
    let broken = format!("{}{}", &text[..at], &text[at + 1..]);
    fixture.write(&broken)?;
    for on_bad in [OnBadSample::Fail, OnBadSample::Skip] {
        let Err(error) = fixture.open(on_bad) else { panic!("accepted") };
        assert!(error.what.contains("broken-json") && error.place.contains("record 2"), "{error}");
        let line = broken[..at].matches('\n').count() + 1;
        assert!(error.place.contains(&format!("train.json:{line}:")), "line {line}: {error}");
    }
    // A fault that leaves the brackets in order can be skipped.
    fixture.write(text.replacen("\"id\": \"3\"", "\"id\": 3x", 1))?;
    assert!(fixture.open(OnBadSample::Fail).is_err());
    assert_eq!(fixture.open(OnBadSample::Skip)?.skipped()[0].place.record, 3);
    // In JSONL a broken line is one record.
    fixture.write(jsonl(&sound(&fixture)?).replacen("\"id\"", "\"id", 1))?;
    let Err(error) = fixture.open(OnBadSample::Fail) else { panic!("accepted") };
    assert!(error.place.contains("train.json:1:") && error.place.contains("record 0"), "{error}");
    assert_eq!(fixture.open(OnBadSample::Skip)?.len(), 11);
    Ok(())
}

#[test]
fn several_defects_are_listed_and_counted() -> TestResult {
    let fixture = Fixture::new()?;
    let bad: Vec<Value> = (0..20).map(|i| qa(&format!("r{i}"), None, "<image>\n", "y")).collect();
    fixture.write(jsonl(&bad))?;
    let Err(error) = fixture.open(OnBadSample::Fail) else { panic!("accepted") };
    assert!(error.place.contains("`r0`") && error.why.contains("`r7`") && error.why.contains("and 12 more"), "{error}");
    assert!(error.hint.contains("on_bad_sample"));
    let Err(error) = fixture.open(OnBadSample::Skip) else { panic!("accepted") };
    assert!(error.what.contains("empty") && error.why.contains("20 in all"), "{error}");
    Ok(())
}

#[test]
fn empty_missing_and_foreign_files_are_refused() -> TestResult {
    let fixture = Fixture::new()?;
    let message = |text: &[u8]| -> Result<String, Box<dyn StdError>> {
        fixture.write(text)?;
        match fixture.open(OnBadSample::Skip) {
            Err(error) if error.kind == Kind::Data => Ok(error.to_string()),
            other => Err(format!("{other:?}").into()),
        }
    };
    assert!(message(b"")?.contains("the dataset is empty"));
    assert!(message(b"[]\n")?.contains("the dataset is empty"));
    assert!(message(b"\xff\xfe[")?.contains("broken-json"));
    assert!(message(b"version https://git-lfs")?.contains("begins with `v`"));
    fs::remove_file(fixture.file())?;
    let Err(error) = fixture.open(OnBadSample::Fail) else { panic!("accepted") };
    assert_eq!(error.kind, Kind::Data);
    assert!(error.place.contains("train.json"), "{error}");
    Ok(())
}

/// What is compared of a run: the place of each micro-batch and its inputs.
fn run(dataset: &Arc<Dataset>, plan: &Arc<StepPlan>, first: u64, workers: usize) -> Result<Vec<MicroBatch>, Error> {
    Loader::start(Arc::clone(dataset), Arc::new(Words), GEOMETRY, Arc::clone(plan), first, workers)?.collect()
}

#[test]
fn the_loader_is_ordered_whatever_its_threads() -> TestResult {
    let fixture = Fixture::new()?;
    fixture.write(jsonl(&sound(&fixture)?))?;
    let dataset = Arc::new(fixture.measured(OnBadSample::Fail)?);
    let sampler = Sampler::new(Order::GroupByModalityLength, 3, 2, 2, dataset.modality_lengths());
    let plan = Arc::new(StepPlan::new(sampler, 3, 0));
    let alone = run(&dataset, &plan, 0, 1)?;
    assert_eq!(alone.len(), 18);
    let places: Vec<_> = alone.iter().map(|m| (m.step, m.epoch, m.index, m.of)).collect();
    assert_eq!(places[..3], [(0, 0, 0, 2), (0, 0, 1, 2), (1, 0, 0, 2)]);
    assert_eq!(places[17], (8, 2, 1, 2));
    for workers in [2, 5] {
        let together = run(&dataset, &plan, 0, workers)?;
        assert!(alone.iter().zip(&together).all(|(a, b)| a.batch == b.batch && a.step == b.step));
        assert_eq!(alone.len(), together.len());
    }
    let resumed = run(&dataset, &plan, 4, 2)?;
    assert!(alone[8..].iter().zip(&resumed).all(|(a, b)| a.batch == b.batch && a.step == b.step));

    // All shapes were known ahead.
    let known = buckets(&plan, dataset.shapes());
    assert!(alone.iter().all(|m| known.contains(&m.batch.bucket)));
    let used: std::collections::BTreeSet<_> = alone.iter().map(|m| m.batch.bucket).collect();
    assert_eq!(known, used);
    Ok(())
}

#[test]
fn every_record_comes_once_an_epoch_with_its_own_picture() -> TestResult {
    let fixture = Fixture::new()?;
    fixture.write(jsonl(&sound(&fixture)?))?;
    let dataset = Arc::new(fixture.measured(OnBadSample::Fail)?);
    let plan = Arc::new(StepPlan::new(Sampler::new(Order::Shuffled, 1, 5, 1, dataset.modality_lengths()), 2, 0));
    let mut seen: HashMap<String, usize> = HashMap::new();
    for micro in run(&dataset, &plan, 0, 2)? {
        let mut pictures = micro.batch.pixels.chunks(12);
        for name in &micro.batch.samples {
            *seen.entry(name.clone()).or_default() += 1;
            let id: u8 = name.split(' ').next().unwrap_or_default().parse()?;
            if id % 3 != 2 {
                assert_eq!(pictures.next(), Some(&[f32::from(10 * id); 12][..]), "{name}");
            }
        }
        assert_eq!(pictures.next(), None);
    }
    assert_eq!(seen.len(), 12);
    assert!(seen.values().all(|&times| times == 2));
    Ok(())
}

#[test]
fn damage_inside_a_picture_comes_up_in_its_place() -> TestResult {
    let fixture = Fixture::new()?;
    let records = sound(&fixture)?;
    fixture.write(jsonl(&records))?;
    let picture = fixture.dir.path().join("images/4.png");
    let whole = fs::read(&picture)?;
    fs::write(&picture, &whole[..whole.len() - 20])?;
    let plan_of = |dataset: &Dataset| {
        let sampler = Sampler::new(Order::Sequential, 0, 2, 1, dataset.modality_lengths());
        Arc::new(StepPlan::new(sampler, 1, 0))
    };

    let dataset = Arc::new(fixture.measured(OnBadSample::Fail)?);
    let plan = plan_of(&dataset);
    let mut loader = Loader::start(Arc::clone(&dataset), Arc::new(Words), GEOMETRY, plan, 0, 3)?;
    assert!(loader.next().is_some_and(|m| m.is_ok_and(|m| m.step == 0)));
    assert!(loader.next().is_some_and(|m| m.is_ok_and(|m| m.step == 1)));
    match loader.next() {
        Some(Err(error)) => assert!(error.place.contains("record 4") && error.what.contains("image-broken"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(loader.next().is_none());

    // When skipping, the row stays and teaches nothing; no shape changes.
    let dataset = Arc::new(fixture.measured(OnBadSample::Skip)?);
    let plan = plan_of(&dataset);
    let batches = run(&dataset, &plan, 0, 2)?;
    assert_eq!(batches.len(), 6);
    assert_eq!(batches[2].batch.defects.len(), 1);
    assert_eq!(batches[2].batch.contributing, 0);
    assert_eq!(batches[2].batch.supervised, dataset.shapes()[5].targets as usize);
    let known = buckets(&plan, dataset.shapes());
    assert!(batches.iter().all(|m| known.contains(&m.batch.bucket)));
    Ok(())
}

#[test]
fn a_dropped_loader_ends_its_threads() -> TestResult {
    let fixture = Fixture::new()?;
    fixture.write(jsonl(&sound(&fixture)?))?;
    let dataset = Arc::new(fixture.measured(OnBadSample::Fail)?);
    let plan =
        Arc::new(StepPlan::new(Sampler::new(Order::Sequential, 0, 1, 1, dataset.modality_lengths()), 1, 1_000_000));
    let mut loader = Loader::start(Arc::clone(&dataset), Arc::new(Words), GEOMETRY, plan, 0, 3)?;
    assert!(loader.next().is_some());
    drop(loader);
    assert_eq!(Arc::strong_count(&dataset), 1);
    Ok(())
}

/// Ids, labels, lengths and counts of the PyTorch reference (`tests/fixtures/*/expected.json`).
#[test]
fn samples_and_batches_equal_the_reference() -> TestResult {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    for case in ["gqa", "mha", "multi", "lm_only", "layer0"] {
        let expected: Value = serde_json::from_slice(&fs::read(fixtures.join(case).join("expected.json"))?)?;
        let config = Config::load(&fixtures.join(case).join("config.toml"), &Overrides::default())?;
        let bundle = Bundle::open(&config)?;
        let samples = expected["samples"].as_array().ok_or("no samples")?;
        assert_eq!(bundle.dataset.len(), samples.len(), "{case}");
        for (position, sample) in samples.iter().enumerate() {
            let encoded = bundle.prepare.encode(&bundle.dataset.record(position)?).map_err(|fault| fault.1)?;
            assert_eq!(json!(encoded.ids), sample["ids"], "{case}, sample {position}");
            assert_eq!(json!(encoded.labels), sample["labels"], "{case}, sample {position}");
        }
        let plan = Arc::new(bundle.step_plan());
        let steps = expected["steps"].as_array().ok_or("no steps")?;
        assert_eq!(plan.steps(), steps.len() as u64, "{case}");
        let mut counted = vec![(0, 0); steps.len()];
        let prepare = Arc::clone(&bundle.prepare);
        for micro in Loader::start(Arc::clone(&bundle.dataset), prepare, bundle.geometry, plan, 0, 2)? {
            let micro = micro?;
            let step = &mut counted[micro.step as usize];
            step.0 += micro.batch.tokens;
            step.1 += micro.batch.supervised;
        }
        for (index, (step, (tokens, supervised))) in steps.iter().zip(counted).enumerate() {
            assert_eq!(step["tokens"], json!(tokens), "{case}, step {index}");
            assert_eq!(step["supervised_tokens"], json!(supervised), "{case}, step {index}");
        }
        for row in expected["rows"].as_array().into_iter().flatten() {
            let position = row["sample"].as_u64().ok_or("no sample")? as usize;
            let shape = bundle.dataset.shapes()[position];
            assert_eq!(json!(shape.tokens), row["length"], "{case}, row {position}");
            assert_eq!(json!(shape.targets), row["targets"], "{case}, row {position}");
            let contributes = config.vra.enabled && shape.visual as usize == bundle.geometry.visual_tokens;
            assert_eq!(json!(contributes), row["contributes"], "{case}, row {position}");
        }
    }
    Ok(())
}
