//! Looks for defects in a dataset without training on it: every record is judged, and nothing stops the search but a file
//! that cannot be cut into records any further.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::thread;

use super::dataset::unreadable;
use super::defect::{Defect, Place, Rule};
use super::picture::{PictureFolder, check_header};
use super::record::{Fault, Record};
use super::sample::{Geometry, Prepare, Sample};
use super::scan::{Broken, Extent, Scanner};
use crate::error::{Error, Result};

/// Bytes that are read from the file at a time.
const READ_AHEAD: usize = 1 << 20;
/// Records that are judged together, on all cores; their defects come out in order.
const PORTION: usize = 4096;

/// What is looked at.
pub struct Check<'a> {
    /// The dataset file.
    pub file: &'a Path,
    /// The picture folder.
    pub images: &'a Path,
    /// From records to tokens and pixels.
    pub prepare: &'a dyn Prepare,
    /// Extents of a sample.
    pub geometry: Geometry,
    /// Whether pictures are decoded, not only their headers read.
    pub decode: bool,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Records in the file.
    pub records: usize,
    /// Records with a defect.
    pub defects: usize,
}

impl Check<'_> {
    /// Judges every record and passes each defect on as soon as it and all before it are known.
    ///
    /// # Errors
    /// The file cannot be read, or `tell` fails.
    pub fn run(&self, mut tell: impl FnMut(Defect) -> Result<()>) -> Result<Checked> {
        let file = File::open(self.file).map_err(|error| unreadable(self.file, &error))?;
        let mut scanner = Scanner::new(BufReader::with_capacity(READ_AHEAD, file)).enumerate();
        let pictures = PictureFolder::new(self.images);
        let mut checked = Checked::default();
        loop {
            let (mut portion, mut last) = (Vec::with_capacity(PORTION), None);
            for (record, extent) in scanner.by_ref().take(PORTION) {
                match extent {
                    Ok(extent) => portion.push((record, extent)),
                    Err(Broken::Io(error)) => return Err(unreadable(self.file, &error)),
                    Err(Broken::Syntax { line, column, detail }) => {
                        let place = Place { file: self.file.to_owned(), record, id: None, at: Some((line, column)) };
                        let detail = format!("{detail}; nothing after this place can be checked");
                        last = Some(Defect { place, rule: Rule::BrokenJson, detail });
                    }
                }
            }
            let is_end = portion.len() < PORTION;
            checked.records += portion.len() + usize::from(last.is_some());
            for defect in self.judge_all(&portion, &pictures)?.into_iter().chain(last) {
                checked.defects += 1;
                tell(defect)?;
            }
            if is_end {
                return Ok(checked);
            }
        }
    }

    fn judge_all(&self, portion: &[(usize, Extent)], pictures: &PictureFolder) -> Result<Vec<Defect>> {
        let workers = thread::available_parallelism().map_or(1, |cores| cores.get());
        let share = portion.len().div_ceil(workers).max(1);
        let parts = thread::scope(|scope| {
            let judge = |part: &'_ [(usize, Extent)]| {
                part.iter().filter_map(|(record, extent)| self.judge(*record, extent, pictures)).collect::<Vec<_>>()
            };
            let threads: Vec<_> = portion.chunks(share).map(|part| scope.spawn(move || judge(part))).collect();
            threads.into_iter().map(|thread| thread.join()).collect::<Result<Vec<_>, _>>()
        });
        let parts =
            parts.map_err(|_| Error::internal("a thread that checks the dataset panicked", "see the message above"))?;
        Ok(parts.concat())
    }

    fn judge(&self, record: usize, extent: &Extent, pictures: &PictureFolder) -> Option<Defect> {
        let fault = match Record::parse(&extent.text) {
            Ok(parsed) => match self.judge_content(&parsed, pictures) {
                Ok(()) => return None,
                Err((rule, detail)) => Fault { rule, id: parsed.id, at: None, detail },
            },
            Err(fault) => fault,
        };
        let at = match fault.at {
            // Only the record's first line is indented by what stands before it.
            Some((1, column)) => (extent.line, extent.column + column - 1),
            Some((line, column)) => (extent.line + line - 1, column),
            None => (extent.line, extent.column),
        };
        let place = Place { file: self.file.to_owned(), record, id: fault.id, at: Some(at) };
        Some(Defect { place, rule: fault.rule, detail: fault.detail })
    }

    fn judge_content(&self, record: &Record, pictures: &PictureFolder) -> Result<(), (Rule, String)> {
        let mut layout = None;
        if let Some(image) = &record.image {
            let file = pictures.locate(image)?;
            layout = self.prepare.layout(check_header(&file)?);
            if self.decode {
                self.prepare.pixels(&file)?;
            }
        }
        let encoded = self.prepare.encode(record)?;
        let shape = Sample::splice(&encoded, self.geometry, layout).map_err(|detail| (Rule::Template, detail))?.shape();
        if shape.targets > 0 {
            return Ok(());
        }
        Err((Rule::NoSupervisedToken, super::dataset::unsupervised(shape, self.geometry)))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::{Config, Overrides};
    use crate::engine::open_data;

    fn qa(head: Value, turns: &[(&str, &str)]) -> String {
        let mut record = head;
        record["conversations"] = turns.iter().map(|(from, value)| json!({"from": from, "value": value})).collect();
        record.to_string()
    }

    fn with_image(image: &str) -> String {
        qa(json!({"id": "x", "image": image}), &[("human", "<image>\nWhat is it?"), ("gpt", "A square.")])
    }

    /// Records that are wrong each in its own way, and the rule that says so.
    fn defects() -> Vec<(String, Rule)> {
        let good = [("human", "What is it?"), ("gpt", "A square.")];
        let text = |record: &str| record.to_owned();
        let mut defects = vec![
            (text(r#"{"id": "a", "conversations": [}"#), Rule::BrokenJson),
            (text(r#"{"id": "a", "conversations": [],}"#), Rule::BrokenJson),
            (text(r#"{id: "a"}"#), Rule::BrokenJson),
            (text("{\"id\": \"tab\there\"}"), Rule::BrokenJson),
            (text(r#"{"id": "open"#), Rule::BrokenJson),
            (text(r#"{"id": "a"} {"id": "b"}"#), Rule::BrokenJson),
            (text(r#"["a"]"#), Rule::WrongType),
            (text(r#""a""#), Rule::WrongType),
            (qa(json!({"id": 1.5}), &good), Rule::WrongType),
            (qa(json!({"id": ["a"]}), &good), Rule::WrongType),
            (qa(json!({"image": 3}), &good), Rule::WrongType),
            (qa(json!({"image": ["000.png", "001.png"]}), &good), Rule::WrongType),
            (text(r#"{"id": "a"}"#), Rule::WrongType),
            (text(r#"{"conversations": "What?"}"#), Rule::WrongType),
            (text(r#"{"conversations": []}"#), Rule::WrongType),
            (text(r#"{"conversations": [7]}"#), Rule::WrongType),
            (text(r#"{"conversations": [{"from": "human"}]}"#), Rule::WrongType),
            (text(r#"{"conversations": [{"value": "What?"}]}"#), Rule::WrongType),
            (text(r#"{"conversations": [{"from": "human", "value": null}]}"#), Rule::WrongType),
            (qa(json!({}), &[("human", "a"), ("assistant", "b")]), Rule::UnknownRole),
            (qa(json!({}), &[("human", "a"), ("human", "b"), ("gpt", "c")]), Rule::RolesNotAlternating),
            (qa(json!({}), &[("human", "a"), ("gpt", "b"), ("gpt", "c")]), Rule::RolesNotAlternating),
            (qa(json!({}), &[("human", "a")]), Rule::NoSupervisedToken),
            (qa(json!({}), &[("human", &"word ".repeat(300)), ("gpt", "b")]), Rule::NoSupervisedToken),
            (qa(json!({}), &[("human", "<image>\na"), ("gpt", "b")]), Rule::TagWithoutImage),
            (qa(json!({"image": "good.png"}), &good), Rule::ImageWithoutTag),
            (
                qa(json!({"image": "good.png"}), &[("human", "<image>"), ("gpt", "b"), ("human", "<image>")]),
                Rule::SeveralImageTags,
            ),
        ];
        let images = [
            ("gone.png", Rule::ImageMissing),
            ("../good.png", Rule::ImageOutsideRoot),
            ("/etc/hostname", Rule::ImageOutsideRoot),
            ("folder", Rule::ImageMissing),
            ("empty.png", Rule::ImageBroken),
            ("page.png", Rule::ImageBroken),
            ("pointer.png", Rule::ImageBroken),
            ("header.png", Rule::ImageBroken),
            ("pixels.png", Rule::ImageBroken),
        ];
        defects.extend(images.map(|(image, rule)| (with_image(image), rule)));
        defects
    }

    fn write_images(folder: &Path) {
        fs::create_dir_all(folder.join("folder")).unwrap();
        let good = folder.join("good.png");
        image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8])).save(&good).unwrap();
        let png = fs::read(&good).unwrap();
        let mut damaged = png.clone();
        let middle = png.len() / 2;
        damaged[middle..middle + 8].iter_mut().for_each(|byte| *byte ^= 0xff);
        let files: [(&str, &[u8]); 5] = [
            ("empty.png", b""),
            ("page.png", b"<!doctype html>"),
            ("pointer.png", b"version https://git-lfs.github.com/spec/v1"),
            ("header.png", &png[..20]),
            ("pixels.png", &damaged),
        ];
        for (name, bytes) in files {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }

    /// R-10. `VIRAL_ROWS` says how many clean rows there are; `scripts/reliability` asks for 20,000.
    #[test]
    fn every_defect_is_found_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/gqa/config.toml");
        let config = Config::load(&case, &Overrides::default()).unwrap();
        let (prepare, geometry) = open_data(&config).unwrap();
        let geometry = Geometry { max_length: 256, ..geometry };
        write_images(folder.path());
        let (file, images) = (folder.path().join("data.jsonl"), folder.path());
        let check = |text: &str, decode| {
            fs::write(&file, text).unwrap();
            let mut found = Vec::new();
            let check = Check { file: &file, images, prepare: &*prepare, geometry, decode };
            let checked = check.run(|defect| {
                found.push(defect);
                Ok(())
            });
            (checked.unwrap(), found)
        };

        let rows: usize = std::env::var("VIRAL_ROWS").map_or(300, |text| text.parse().expect("a number"));
        let mut clean = String::new();
        for row in 0..rows {
            let question = format!("What is object {row} like, and how many of its {} sides are straight?", row % 7);
            let answer = format!("It is number {row}. ").repeat(1 + row % 9);
            let turns = [("human", question.as_str()), ("gpt", &answer), ("human", "And now?"), ("gpt", "The same.")];
            let pictured = [("human", "<image>\nDescribe it."), ("gpt", answer.as_str())];
            let record = match row % 3 {
                0 => qa(json!({"id": row, "model": ""}), &turns),
                1 => qa(json!({"id": format!("{row}"), "image": "good.png"}), &pictured),
                _ => qa(json!({"image": "./good.png"}), &[&[("gpt", "Hello.")], &pictured[..]].concat()),
            };
            let _ = writeln!(clean, "{record}");
        }
        let begin = std::time::Instant::now();
        let (checked, found) = check(&clean, false);
        assert_eq!((checked, &found[..]), (Checked { records: rows, defects: 0 }, &[][..]));
        println!("{rows} clean rows: no defect, {:.1} s", begin.elapsed().as_secs_f64());

        let seeded = defects();
        assert!(seeded.len() > 30);
        let good = clean.lines().next().unwrap();
        let mixed: String = seeded.iter().map(|(record, _)| format!("{good}\n{record}\n")).collect();
        let (checked, found) = check(&mixed, true);
        assert_eq!(checked.records, 2 * seeded.len());
        assert_eq!(found.len(), seeded.len(), "{found:#?}");
        for (index, (defect, (record, rule))) in found.iter().zip(&seeded).enumerate() {
            assert_eq!((defect.place.record, defect.rule), (2 * index + 1, *rule), "{record}: {defect}");
            assert_eq!(defect.place.at.map(|(line, _)| line), Some(2 * index as u64 + 2), "{defect}");
            assert!(!defect.rule.hint().is_empty());
        }
        println!("{} seeded defects, all found", seeded.len());
        // Damage inside a picture shows only when it is decoded.
        assert_eq!(check(&mixed, false).1.len(), seeded.len() - 1);
        // In an array, what follows a broken place cannot be told apart any more.
        let (checked, found) = check(&format!("[{good},\n{{\"id\": 1]]"), false);
        assert_eq!((checked.defects, found[0].rule), (1, Rule::BrokenJson));
    }
}
