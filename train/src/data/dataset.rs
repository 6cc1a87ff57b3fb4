//! A dataset file as a list of records that are read when they are needed.
//!
//! Opening a dataset walks the file once and keeps where each record stands, some forty bytes a record; measuring it
//! tokenises every record and looks at every picture's header, on all cores. Either way every defect is found before
//! the first training step, except damage inside a picture, which shows when it is decoded.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};

use super::batch::Row;
use super::defect::{self, Defect, Place, Rule};
use super::picture::{PictureFolder, check_header};
use super::record::{Fault, Record};
use super::rng::Mt19937;
use super::sample::{Geometry, Prepare, Sample, SampleShape};
use super::scan::{Broken, Scanner};
use crate::config::OnBadSample;
use crate::error::{Error, Kind, Result};

/// Bytes that are read from the file at a time while it is walked.
const READ_AHEAD: usize = 1 << 20;

/// A dataset in LLaVA's format: a JSON array of records, or JSONL.
#[derive(Debug)]
pub struct Dataset {
    file: PathBuf,
    reader: Arc<Mutex<File>>,
    pictures: PictureFolder,
    on_bad: OnBadSample,
    entries: Vec<Entry>,
    shapes: Vec<SampleShape>,
    skipped: Vec<Defect>,
}

/// Where a record stands in the file.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Position among all records of the file, skipped ones included.
    record: usize,
    offset: u64,
    bytes: u32,
    line: u32,
    column: u32,
    modality_length: i32,
    /// Width and height of the picture, once it has been measured.
    size: Option<[u32; 2]>,
}

impl Dataset {
    /// Walks a dataset file and checks the text of every record; pictures lie under `images`.
    ///
    /// # Errors
    /// The file cannot be read, is empty, or is broken beyond finding the next record; with
    /// [`OnBadSample::Fail`] also any defect of a record.
    pub fn open(file: &Path, images: &Path, on_bad: OnBadSample) -> Result<Self> {
        let reader = File::open(file).and_then(|reader| {
            if reader.metadata()?.is_dir() { Err(std::io::ErrorKind::IsADirectory.into()) } else { Ok(reader) }
        });
        let reader = reader.map_err(|error| unreadable(file, &error))?;
        let mut dataset = Self {
            file: file.to_owned(),
            reader: Arc::new(Mutex::new(reader)),
            pictures: PictureFolder::new(images),
            on_bad,
            entries: Vec::new(),
            shapes: Vec::new(),
            skipped: Vec::new(),
        };
        let (entries, defects) = dataset.index()?;
        dataset.entries = entries;
        dataset.settle(defects)?;
        Ok(dataset)
    }

    /// Records that can be used.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no usable record. An opened dataset has at least one.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Records that were left out, and why. Empty with [`OnBadSample::Fail`].
    pub fn skipped(&self) -> &[Defect] {
        &self.skipped
    }

    /// Hash of the dataset file and of which of its records are used. Pictures do not count.
    ///
    /// # Errors
    /// The file can no longer be read.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for entry in &self.entries {
            hash.update((entry.record as u64).to_le_bytes());
        }
        let file = File::open(&self.file).and_then(|file| {
            let mut reader = BufReader::with_capacity(READ_AHEAD, file);
            loop {
                let read = reader.fill_buf()?;
                if read.is_empty() {
                    return Ok(());
                }
                hash.update(read);
                let count = read.len();
                reader.consume(count);
            }
        });
        file.map_err(|error| unreadable(&self.file, &error))?;
        Ok(format!("{:x}", hash.finalize()))
    }

    /// Words of each record, negative without a picture: what the sampler groups by.
    pub fn modality_lengths(&self) -> Vec<i64> {
        self.entries.iter().map(|entry| i64::from(entry.modality_length)).collect()
    }

    /// The shape of each record's sample; empty before [`Dataset::measure`].
    pub fn shapes(&self) -> &[SampleShape] {
        &self.shapes
    }

    /// Tokenises every record and looks at every picture's header, on all cores, so that every batch shape of a run is
    /// known ahead. Records with a defect are dropped, so positions change.
    ///
    /// # Errors
    /// No record is left; with [`OnBadSample::Fail`] any defect of a record.
    pub fn measure(&mut self, prepare: &dyn Prepare, geometry: Geometry) -> Result<()> {
        let workers = thread::available_parallelism().map_or(1, |cores| cores.get());
        let share = self.entries.len().div_ceil(workers).max(1);
        let this = &*self;
        let measured: Vec<Result<(Entry, SampleShape), Defect>> = thread::scope(|scope| {
            let measure = |entries| move || this.measure_entries(entries, prepare, geometry);
            let parts: Vec<_> = self.entries.chunks(share).map(|part| scope.spawn(measure(part))).collect();
            parts.into_iter().map(|part| part.join()).collect::<Result<Vec<_>, _>>()
        })
        .map_err(|_| Error::internal("a thread that measures the dataset panicked", "see the message above"))?
        .concat();

        let mut entries = Vec::with_capacity(measured.len());
        let mut shapes = Vec::with_capacity(measured.len());
        let mut defects = Vec::new();
        for measured in measured {
            match measured {
                Ok((entry, shape)) => {
                    entries.push(entry);
                    shapes.push(shape);
                }
                Err(defect) => defects.push(defect),
            }
        }
        self.entries = entries;
        self.shapes = shapes;
        self.settle(defects)
    }

    /// Takes a share of the records away as a dataset of its own: at least one, and at least one stays. Which ones depends
    /// on the seed and their number alone; either part keeps the order of the file. Call it after [`Dataset::measure`].
    ///
    /// # Errors
    /// There are fewer than two records.
    pub fn split(&mut self, share: f64, seed: u64) -> Result<Self> {
        let records = self.entries.len();
        if records < 2 {
            return Err(defect::too_few(&self.file, records));
        }
        let count = ((records as f64 * share).round() as usize).clamp(1, records - 1);
        // Another stream than that of any epoch's order.
        let order = Mt19937::new(!seed).permutation(records);
        let mut is_taken = vec![false; records];
        order.iter().take(count).for_each(|&position| is_taken[position] = true);
        let part = |wanted: bool| {
            let positions = (0..records).filter(|&position| is_taken[position] == wanted);
            let entries = positions.clone().map(|position| self.entries[position]).collect();
            let shapes = positions.filter_map(|position| self.shapes.get(position).copied()).collect();
            (entries, shapes)
        };
        let ((entries, shapes), (rest, rest_shapes)) = (part(true), part(false));
        let taken = Self {
            file: self.file.clone(),
            reader: Arc::clone(&self.reader),
            pictures: self.pictures.clone(),
            on_bad: self.on_bad,
            entries,
            shapes,
            skipped: Vec::new(),
        };
        (self.entries, self.shapes) = (rest, rest_shapes);
        Ok(taken)
    }

    /// Reads the record at `position` (0-based, below [`Dataset::len`]).
    ///
    /// # Errors
    /// There is no such position, or the file has changed since it was opened.
    pub fn record(&self, position: usize) -> Result<Record> {
        Ok(self.read(self.entry(position)?)?)
    }

    /// Reads, tokenises and decodes the sample at `position`.
    ///
    /// # Errors
    /// The sample has a defect that was not known before; with [`OnBadSample::Skip`] it becomes a row that teaches
    /// nothing, as long as its shape is known.
    pub fn load(&self, position: usize, prepare: &dyn Prepare, geometry: Geometry) -> Result<Row> {
        let entry = self.entry(position)?;
        let record = self.read(entry)?;
        let size = entry.size.map(|size| size.map(|side| side as usize));
        let unmeasured = || record.image.is_some().then(|| check_header(&self.locate(entry, &record).ok()?).ok())?;
        let size = size.or_else(unmeasured);
        let sample = self.sample(entry, &record, size, prepare, geometry)?;
        let (name, aligned) = (self.name(entry, &record), prepare.aligned(&record));
        let mut row = Row { name, sample, pixels: None, aligned, defect: None };
        if row.sample.visual_len > 0 {
            match self.pixels(entry, &record, prepare) {
                Ok(pixels) => row.pixels = Some(pixels),
                Err(defect) => match self.on_bad {
                    OnBadSample::Fail => return Err(defect.into()),
                    OnBadSample::Skip => row.defect = Some(defect),
                },
            }
        }
        Ok(row)
    }

    /// Walks the file from its front: where each sound record stands, and the defects of the others.
    fn index(&self) -> Result<(Vec<Entry>, Vec<Defect>)> {
        let (mut entries, mut defects) = (Vec::new(), Vec::new());
        let reader = self.reader.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for (record, extent) in Scanner::new(BufReader::with_capacity(READ_AHEAD, &*reader)).enumerate() {
            let extent = match extent {
                Ok(extent) => extent,
                Err(Broken::Io(error)) => return Err(unreadable(&self.file, &error)),
                // Where the next record begins is anybody's guess, so this cannot be skipped.
                Err(Broken::Syntax { line, column, detail }) => {
                    let place = Place { file: self.file.clone(), record, id: None, at: Some((line, column)) };
                    return Err(Defect { place, rule: Rule::BrokenJson, detail }.into());
                }
            };
            match Record::parse(&extent.text) {
                Ok(parsed) => entries.push(Entry {
                    record,
                    offset: extent.offset,
                    bytes: u32::try_from(extent.text.len()).unwrap_or(u32::MAX),
                    line: u32::try_from(extent.line).unwrap_or(u32::MAX),
                    column: u32::try_from(extent.column).unwrap_or(u32::MAX),
                    modality_length: parsed.modality_length.clamp(-i64::from(i32::MAX), i64::from(i32::MAX)) as i32,
                    size: None,
                }),
                Err(fault) => defects.push(self.fault(record, extent.line, extent.column, fault)),
            }
        }
        Ok((entries, defects))
    }

    /// Applies `on_bad_sample` to newly found defects.
    fn settle(&mut self, defects: Vec<Defect>) -> Result<()> {
        match self.on_bad {
            OnBadSample::Fail => {
                if let Some(error) = defect::report(&defects) {
                    return Err(error);
                }
            }
            OnBadSample::Skip => {
                self.skipped.extend(defects);
                self.skipped.sort_by_key(|defect| defect.place.record);
            }
        }
        if self.entries.is_empty() { Err(defect::empty(&self.file, &self.skipped)) } else { Ok(()) }
    }

    fn measure_entries(
        &self,
        entries: &[Entry],
        prepare: &dyn Prepare,
        geometry: Geometry,
    ) -> Vec<Result<(Entry, SampleShape), Defect>> {
        let measure = |entry: &Entry| {
            let record = self.read(entry)?;
            let mut size = None;
            if record.image.is_some() {
                let file = self.locate(entry, &record)?;
                size = Some(check_header(&file).map_err(|fault| self.defect(entry, &record, fault))?);
            }
            let shape = self.sample(entry, &record, size, prepare, geometry)?.shape();
            if shape.targets == 0 {
                return Err(self.defect(entry, &record, (Rule::NoSupervisedToken, unsupervised(shape, geometry))));
            }
            Ok((Entry { size: size.map(|size| size.map(|side| side as u32)), ..*entry }, shape))
        };
        entries.iter().map(measure).collect()
    }

    fn sample(
        &self,
        entry: &Entry,
        record: &Record,
        size: Option<[usize; 2]>,
        prepare: &dyn Prepare,
        geometry: Geometry,
    ) -> Result<Sample, Defect> {
        let encoded = prepare.encode(record).map_err(|fault| self.defect(entry, record, fault))?;
        let layout = size.and_then(|size| prepare.layout(size));
        Sample::splice(&encoded, geometry, layout)
            .map_err(|detail| self.defect(entry, record, (Rule::Template, detail)))
    }

    fn pixels(&self, entry: &Entry, record: &Record, prepare: &dyn Prepare) -> Result<Vec<f32>, Defect> {
        let file = self.locate(entry, record)?;
        let pixels = check_header(&file).and_then(|_| prepare.pixels(&file));
        pixels.map_err(|fault| self.defect(entry, record, fault))
    }

    fn locate(&self, entry: &Entry, record: &Record) -> Result<PathBuf, Defect> {
        let located = self.pictures.locate(record.image.as_deref().unwrap_or_default());
        located.map_err(|fault| self.defect(entry, record, fault))
    }

    fn entry(&self, position: usize) -> Result<&Entry> {
        self.entries.get(position).ok_or_else(|| {
            let why = format!("position {position} of {} records", self.entries.len());
            Error::internal("a record was asked for that does not exist", why)
        })
    }

    fn read(&self, entry: &Entry) -> Result<Record, Defect> {
        let mut text = vec![0; entry.bytes as usize];
        let read = {
            // A panic elsewhere cannot leave the file in a state that matters: every read seeks first.
            let mut reader = self.reader.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            reader.seek(SeekFrom::Start(entry.offset)).and_then(|_| reader.read_exact(&mut text))
        };
        let fault = match read {
            Ok(()) => match Record::parse(&text) {
                Ok(record) => return Ok(record),
                Err(fault) => fault,
            },
            Err(error) => Fault { rule: Rule::BrokenJson, id: None, at: None, detail: error.to_string() },
        };
        // The record was sound when the file was opened.
        let detail = format!("the file has changed since it was opened: {}", fault.detail);
        Err(self.fault(entry.record, entry.line.into(), entry.column.into(), Fault { detail, ..fault }))
    }

    /// What a sample is called in messages: its id if it has one, and its position in the file.
    fn name(&self, entry: &Entry, record: &Record) -> String {
        match &record.id {
            Some(id) => format!("{id} (record {})", entry.record),
            None => format!("record {}", entry.record),
        }
    }

    fn defect(&self, entry: &Entry, record: &Record, (rule, detail): (Rule, String)) -> Defect {
        let fault = Fault { rule, id: record.id.clone(), at: None, detail };
        self.fault(entry.record, entry.line.into(), entry.column.into(), fault)
    }

    /// A defect of the record that begins at `line` and `column`.
    fn fault(&self, record: usize, line: u64, column: u64, fault: Fault) -> Defect {
        let at = match fault.at {
            // Only the record's first line is indented by what stands before it.
            Some((1, inner)) => (line, column + inner - 1),
            Some((inner_line, inner)) => (line + inner_line - 1, inner),
            None => (line, column),
        };
        let place = Place { file: self.file.clone(), record, id: fault.id, at: Some(at) };
        Defect { place, rule: fault.rule, detail: fault.detail }
    }
}

/// What is wrong with a sample that teaches nothing.
pub(super) fn unsupervised(shape: SampleShape, geometry: Geometry) -> String {
    let (tokens, longest) = (shape.tokens, geometry.max_length);
    format!("none of its {tokens} tokens is supervised after the cut to train.max_length = {longest}")
}

pub(super) fn unreadable(file: &Path, error: &std::io::Error) -> Error {
    Error { kind: Kind::Data, ..Error::io("read the dataset", file, error) }
}
