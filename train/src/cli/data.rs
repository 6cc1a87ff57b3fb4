//! `viral-wgpu data`: look at a dataset before training on it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;
use viral_model::text::{IGNORED, IMAGE, Tokenizer};

use super::options::Options;
use super::output;
use crate::config::{Config, HeldOut, OnBadSample};
use crate::data::{Bucket, Check, Checked, Dataset, Defect, SampleShape};
use crate::engine::{Networks, open_data, open_datasets, step_plan};
use crate::error::{Error, Kind, Result, escape};

/// Check, show and measure the dataset of a configuration; needs no weights and no device
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Look for defects: every record that breaks a rule, with file, line, record, rule and what to do
    Check {
        /// Configuration file
        config: PathBuf,
        /// Print one JSON object a defect, and one at the end
        #[arg(long)]
        json: bool,
        /// Decode every picture; otherwise only headers are read
        #[arg(long)]
        images: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Show records as the model sees them: token ids with labels, and the picture as PNG
    Preview {
        /// Configuration file
        config: PathBuf,
        /// First usable record, counted from 0
        #[arg(long, default_value_t = 0)]
        record: usize,
        /// Records
        #[arg(long, default_value_t = 1)]
        count: usize,
        /// Folder for the pictures
        #[arg(long, value_name = "DIR", default_value = "preview")]
        out: PathBuf,
        #[command(flatten)]
        options: Options,
    },
    /// Lengths, tokens, pictures, padding and batch shapes
    Stats {
        /// Configuration file
        config: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        options: Options,
    },
}

pub(super) fn run(args: Args) -> Result<()> {
    match args.action {
        Action::Check { config, json, images, options } => check(&options.load(&config, None)?, json, images),
        Action::Preview { config, record, count, out, options } => {
            preview(&options.load(&config, None)?, record..record.saturating_add(count), &out)
        }
        Action::Stats { config, json, options } => stats(&options.load(&config, None)?, json),
    }
}

fn check(config: &Config, json: bool, decode: bool) -> Result<()> {
    let (prepare, geometry) = open_data(config)?;
    let (train, images) = (&config.data.train, &config.data.images);
    let held_out = match &config.data.validation {
        Some(HeldOut::File(file)) => Some(file),
        Some(HeldOut::Share(_)) | None => None,
    };
    let (mut checked, mut places) = (Checked::default(), Vec::new());
    for file in [train].into_iter().chain(held_out) {
        let check = Check { file, images, prepare: &*prepare, geometry, decode };
        let found = check.run(|defect| output::print(&if json { as_json(&defect) } else { as_text(&defect) }))?;
        checked.records += found.records;
        checked.defects += found.defects;
        places.extend((found.defects > 0).then(|| file.display().to_string()));
    }
    let summary = format!("{} records, {} with a defect", checked.records, checked.defects);
    if json {
        output::print(&format!("{}\n", json!({"records": checked.records, "defects": checked.defects})))?;
    } else {
        output::print(&format!("{summary}\n"))?;
    }
    if checked.defects == 0 {
        return Ok(());
    }
    Err(Error {
        kind: Kind::Data,
        what: "the dataset has defects".into(),
        place: places.join(", "),
        why: summary,
        hint: "repair the records listed on standard output, or set data.on_bad_sample = \"skip\"".into(),
    })
}

fn as_text(defect: &Defect) -> String {
    format!("{}\n  {}\n", escape(&defect.to_string()), escape(defect.rule.hint()))
}

fn as_json(defect: &Defect) -> String {
    let place = &defect.place;
    let value = json!({
        "file": place.file.display().to_string(),
        "line": place.at.map(|(line, _)| line),
        "column": place.at.map(|(_, column)| column),
        "record": place.record,
        "id": place.id,
        "rule": defect.rule.name(),
        "detail": defect.detail,
        "hint": defect.rule.hint(),
    });
    format!("{value}\n")
}

fn preview(config: &Config, records: std::ops::Range<usize>, out: &Path) -> Result<()> {
    let (prepare, geometry) = open_data(config)?;
    let networks = Networks::open(config)?;
    let tokenizer = Tokenizer::from_dir(&config.model.path)?;
    let dataset = Dataset::open(&config.data.train, &config.data.images, OnBadSample::Skip)?;
    for position in records.start..records.end.min(dataset.len()) {
        let record = dataset.record(position)?;
        let invalid =
            |(_, detail)| Error { place: format!("record {position}"), ..Error::internal("no sample", detail) };
        let encoded = prepare.encode(&record).map_err(invalid)?;
        let row = dataset.load(position, &*prepare, geometry)?;
        let mut text = format!("record {position}, id {}\n", escape(record.id.as_deref().unwrap_or("none")));
        let _ = writeln!(text, "{:>6}  {:>7}  {:>7}  text", "place", "id", "label");
        for (place, (&id, &label)) in encoded.ids.iter().zip(&encoded.labels).enumerate() {
            let piece = match u32::try_from(id) {
                _ if id == IMAGE => format!("<image>: {} visual tokens", row.sample.visual_len),
                Ok(id) => format!("{:?}", tokenizer.decode(&[id]).unwrap_or_default()),
                Err(_) => String::new(),
            };
            let label = if label == IGNORED { "–".to_owned() } else { label.to_string() };
            let _ = writeln!(text, "{place:>6}  {id:>7}  {label:>7}  {}", escape(&piece));
        }
        let _ = writeln!(text, "{} tokens, {} supervised", row.sample.ids.len(), row.sample.targets.len());
        if let Some(pixels) = row.pixels {
            let file = out.join(format!("record-{position}.png"));
            let square = 3 * geometry.image_side.pow(2);
            let (whole, tiles) = pixels.split_at(square.min(pixels.len()));
            write_png(&file, whole, [1, 1], geometry.image_side, networks.processor.normalize)?;
            let _ = writeln!(text, "picture: {}", escape(&file.display().to_string()));
            if let Some(layout) = row.sample.layout {
                let file = out.join(format!("record-{position}-tiles.png"));
                write_png(&file, tiles, layout.grid, geometry.image_side, networks.processor.normalize)?;
                let [rows, columns] = layout.grid;
                let _ = writeln!(text, "{rows} x {columns} tiles: {}", escape(&file.display().to_string()));
            }
        }
        output::print(&(text + "\n"))?;
    }
    Ok(())
}

/// Preprocessed pixels of rows of tiles as one picture: the normalisation is undone. // (rows * columns, 3, H, W)
fn write_png(
    file: &Path,
    pixels: &[f32],
    [rows, columns]: [usize; 2],
    side: usize,
    normalize: Option<([f64; 3], [f64; 3])>,
) -> Result<()> {
    let (mean, std) = normalize.unwrap_or(([0.0; 3], [1.0; 3]));
    let plane = side * side;
    let byte = |channel: usize, at: usize| {
        let value = pixels.get(channel * plane + at).copied().unwrap_or(0.0);
        ((f64::from(value) * std[channel] + mean[channel]) * 255.0).round().clamp(0.0, 255.0) as u8
    };
    let picture = image::RgbImage::from_fn((columns * side) as u32, (rows * side) as u32, |x, y| {
        let (x, y) = (x as usize, y as usize);
        let tile = (y / side) * columns + x / side;
        let at = tile * 3 * plane + (y % side) * side + x % side;
        image::Rgb([byte(0, at), byte(1, at), byte(2, at)])
    });
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| Error::io("make the folder", folder, &error))?;
    picture.save(file).map_err(|error| Error::io("write the picture", file, &std::io::Error::other(error)))
}

fn stats(config: &Config, json: bool) -> Result<()> {
    let (prepare, geometry) = open_data(config)?;
    let (dataset, validation) = open_datasets(config, &*prepare, geometry, OnBadSample::Skip)?;
    let held_out = validation.map_or(0, |dataset| dataset.len());
    let shapes = dataset.shapes();
    let plan = step_plan(config, dataset.modality_lengths());
    let (mut rows, mut positions, mut tokens) = (std::collections::BTreeMap::<Bucket, u64>::new(), 0, 0);
    for step in 0..plan.steps_per_epoch() {
        for micro_batch in plan.step(step).micro_batches {
            let shapes: Vec<SampleShape> = micro_batch.iter().filter_map(|&at| shapes.get(at).copied()).collect();
            let bucket = Bucket::of(&shapes);
            *rows.entry(bucket).or_default() += 1;
            positions += bucket.batch * bucket.tokens;
            tokens += shapes.iter().map(|shape| shape.tokens as usize).sum::<usize>();
        }
    }
    let padding = 1.0 - tokens as f64 / positions.max(1) as f64;
    let images = shapes.iter().filter(|shape| shape.visual > 0).count();
    let cut = shapes.iter().filter(|shape| shape.tokens as usize >= geometry.max_length).count();
    let lengths = Spread::of(shapes.iter().map(|shape| shape.tokens));
    let supervised = Spread::of(shapes.iter().map(|shape| shape.targets));
    let (records, skipped) = (shapes.len(), dataset.skipped().len());
    if json {
        let spread = |one: &Spread| json!({"total": one.total, "min": one.least, "median": one.median, "p95": one.p95, "max": one.most});
        let value = json!({
            "records": records, "validation_records": held_out, "skipped": skipped, "with_picture": images, "text_only": records - images,
            "at_max_length": cut, "tokens": spread(&lengths), "supervised_tokens": spread(&supervised),
            "steps_per_epoch": plan.steps_per_epoch(), "steps": plan.steps(), "batch_shapes": rows.len(),
            "padding_share": padding,
        });
        return output::print(&format!("{value:#}\n"));
    }
    let mut text = String::new();
    let _ = writeln!(text, "records      {records} ({images} with a picture, {} text only)", records - images);
    let _ = writeln!(text, "validation   {held_out} more, which are not learnt from");
    let _ = writeln!(
        text,
        "unusable     {skipped}{}",
        if skipped > 0 { "; `viral-wgpu data check` lists them" } else { "" }
    );
    let _ = writeln!(text, "at the limit {cut} of train.max_length = {}", geometry.max_length);
    let _ = writeln!(text, "\n{:<12} {:>12} {:>8} {:>8} {:>8} {:>8}", "", "total", "least", "median", "95 %", "most");
    for (name, one) in [("tokens", &lengths), ("supervised", &supervised)] {
        let Spread { total, least, median, p95, most } = one;
        let _ = writeln!(text, "{name:<12} {total:>12} {least:>8} {median:>8} {p95:>8} {most:>8}");
    }
    let _ = writeln!(text, "\nsteps        {} of an epoch, {} in all", plan.steps_per_epoch(), plan.steps());
    let _ = writeln!(text, "padding      {:.1} % of all positions", 100.0 * padding);
    let titles =
        ["batch", "tokens", "tail", "pictures", "tiles", "targets"].map(|title| format!("{title:>8}")).join(" ");
    let _ = writeln!(text, "\n{titles} {:>12}", "micro-batches");
    for (bucket, count) in rows {
        let Bucket { batch, tokens, tail, images, tiles, targets } = bucket;
        let _ = writeln!(text, "{batch:>8} {tokens:>8} {tail:>8} {images:>8} {tiles:>8} {targets:>8} {count:>12}");
    }
    output::print(&text)
}

/// How numbers are spread.
struct Spread {
    total: u64,
    least: u32,
    median: u32,
    p95: u32,
    most: u32,
}

impl Spread {
    fn of(numbers: impl Iterator<Item = u32>) -> Self {
        let mut sorted: Vec<u32> = numbers.collect();
        sorted.sort_unstable();
        let at = |share: f64| {
            let position = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
            sorted.get(position).copied().unwrap_or(0)
        };
        let total = sorted.iter().map(|&number| u64::from(number)).sum();
        Self { total, least: at(0.0), median: at(0.5), p95: at(0.95), most: at(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_ranks() {
        let Spread { total, least, median, p95, most } = Spread::of((0..=100).rev());
        assert_eq!((total, least, median, p95, most), (5050, 0, 50, 95, 100));
        assert_eq!(Spread::of([].into_iter()).most, 0);
    }
}
