//! What is known about the kernels of one device: measured once, kept in a file, and taken by runs instead of the rules'
//! choice.
//!
//! The compiler says what can be decided by measuring ([`tunables`](viral_compiler::tunables)) and which questions a run's
//! graphs ask; [`measure`] answers them one by one on the device; [`record`] is the file of the answers. Here is which of them a
//! run takes, by `device.tune`: rules alone, the file of the device that it finds in the cache, or a measurement of its own.
//!
//! Other choices add in another order, so a run that is resumed takes those that it began with: [`fresh`] leaves them in the run
//! folder, and [`resumed`] finds them there, whatever the cache says by then.

mod measure;
mod record;

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use viral_compiler::tunables::{self, Question};
use viral_compiler::{Graph, Options, Target, Tuning};
use viral_runtime::{AdapterReport, Device};

use crate::config::{Config, Tune};
use crate::error::{Error, Result, escape};
use crate::run::{self, RunFolder, duration, terminal};
pub use record::{Entry, TuningRecord};

/// Name of the record in a run folder.
pub const FILE: &str = "tuning.toml";

/// How often questions are asked: answers change plans, and with them what remains to be asked.
const ASKED: usize = 3;

/// Graphs of a run for a target, and the compiler's options for each.
pub type Sources<'s> = &'s dyn Fn(&Target) -> Vec<(Graph, Options)>;

/// What was measured on an adapter before, if the configuration wants it, as a part of what plans are made for.
pub fn cached(adapter: &AdapterReport, target: Target, config: &Config, folder: Option<&Path>) -> Target {
    let record = folder.filter(|_| config.device.tune != Tune::Off).and_then(|folder| find(folder, adapter, &target));
    let tuning = record.map(|record| applied(&record, &target, "the record of measured kernels")).unwrap_or_default();
    Target { tuning, ..target }
}

/// A device with the kernels for graphs that the configuration wants: by rule, by the record of the device in `folder`, or as
/// measured now, within `device.tune_seconds` or until `is_stopped`. Also the record that they are out of.
///
/// # Errors
/// What a device can refuse.
pub fn tuned(
    device: &Device,
    config: &Config,
    folder: Option<&Path>,
    sources: Sources<'_>,
    is_stopped: &dyn Fn() -> bool,
) -> Result<(Device, Option<TuningRecord>)> {
    let (adapter, target) = (device.adapter(), device.target());
    let known = folder.filter(|_| config.device.tune != Tune::Off).and_then(|folder| find(folder, adapter, target));
    if config.device.tune != Tune::Full {
        return Ok(match known {
            Some(record) => (device.tuned(applied(&record, target, "the record of measured kernels")), Some(record)),
            None => (device.clone(), None),
        });
    }
    let mut record = TuningRecord::new(adapter, target, run::now());
    record.entries = known.map(|known| known.entries).unwrap_or_default();
    measure_all(device, &mut record, Duration::from_secs(config.device.tune_seconds as u64), sources, is_stopped)?;
    let tuning = record.tuning(target).0;
    match folder.map(|folder| TuningRecord::file(folder, adapter)) {
        None => log::warn!("there is no cache folder, so what was measured is not kept; VIRAL_CACHE_DIR can name one"),
        Some(file) => match record.write(&file) {
            Ok(()) => log::info!("wrote {}", escape(&file.display().to_string())),
            Err(error) => log::warn!("what was measured is not kept for other runs: {error}"),
        },
    }
    Ok((device.tuned(tuning), Some(record)))
}

/// As [`tuned`], for a run that begins: the choices are left in its folder.
///
/// # Errors
/// As [`tuned`], and what a disk can refuse.
pub(crate) fn fresh(
    device: &Device,
    config: &Config,
    folder: Option<&Path>,
    run: &RunFolder,
    sources: Sources<'_>,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Device> {
    let (device, record) = tuned(device, config, folder, sources, is_stopped)?;
    match record.filter(|record| !record.entries.is_empty()) {
        Some(record) => run.write(FILE, record.to_toml().as_bytes())?,
        // A run that came to nothing may have left one.
        None => run.remove(FILE)?,
    }
    Ok(device)
}

/// A device with the kernels that a run began with.
///
/// # Errors
/// A record in the run folder that cannot be read: the run would go on with other bits.
pub(crate) fn resumed(device: &Device, config: &Config, run: &RunFolder) -> Result<Device> {
    let path = run.join(FILE);
    let record = TuningRecord::read(&path).map_err(|error| Error {
        hint: "put back the file that the run began with; without it, the run goes on by rules, with other bits".into(),
        ..error
    })?;
    if config.device.tune == Tune::Full {
        log::warn!("nothing is measured: a run that goes on keeps the kernels that it began with");
    }
    let Some(record) = record else { return Ok(device.clone()) };
    if let Some(why) = record.foreign(device.adapter(), device.target()) {
        log::warn!(
            "{}: {}; it is used all the same, as the run began with it",
            escape(&path.display().to_string()),
            escape(&why)
        );
    }
    Ok(device.tuned(applied(&record, device.target(), "the run's record of kernels")))
}

/// The record of a device in the cache. One that is damaged or of something else is told and left alone.
fn find(folder: &Path, adapter: &AdapterReport, target: &Target) -> Option<TuningRecord> {
    let path = TuningRecord::file(folder, adapter);
    let record = match TuningRecord::read(&path) {
        Ok(record) => record?,
        Err(error) => {
            log::warn!("kernels are chosen by rule: {error}");
            return None;
        }
    };
    match record.foreign(adapter, target) {
        None => Some(record),
        Some(why) => {
            let error = Error {
                kind: crate::error::Kind::Config,
                what: "the record of measured kernels does not hold here".into(),
                place: path.display().to_string(),
                why,
                hint: "--tune full measures again; deleting the file, or --tune off, ends this message".into(),
            };
            log::warn!("kernels are chosen by rule: {error}");
            None
        }
    }
}

/// The choices of a record that mean something; the others are told.
fn applied(record: &TuningRecord, target: &Target, what: &str) -> Tuning {
    let (tuning, ignored) = record.tuning(target);
    for why in ignored {
        log::warn!("an entry of {what} is ignored: {}", escape(&why));
    }
    if !tuning.is_empty() {
        log::info!("{} kernels are chosen as measured on {}, and not by rule", tuning.len(), escape(&record.measured));
    }
    tuning
}

/// Answers what graphs ask, in the place of what the record said about it.
fn measure_all(
    device: &Device,
    record: &mut TuningRecord,
    budget: Duration,
    sources: Sources<'_>,
    is_stopped: &dyn Fn() -> bool,
) -> Result<()> {
    let mut show = Show::new(Instant::now(), budget);
    let mut answered: HashSet<(&str, String)> = HashSet::new();
    let (mut faster, mut left) = (Vec::new(), 0);
    for _ in 0..ASKED {
        let questions: Vec<Question> = {
            let target = Target { tuning: record.tuning(device.target()).0, ..device.target().clone() };
            let mut asked = Vec::new();
            for (graph, options) in sources(&target) {
                asked.extend(tunables::questions(&graph, &options)?);
            }
            tunables::merged(asked)
        };
        let open = |question: &Question| !answered.contains(&(question.tunable, question.class.clone()));
        let questions: Vec<Question> = questions.into_iter().filter(open).collect();
        if questions.is_empty() {
            break;
        }
        // Until they are answered, rules decide.
        record.entries.retain(|entry| !questions.iter().any(|question| is_about(entry, question)));
        left = 0;
        let mut tuning = record.tuning(device.target()).0;
        for (index, question) in questions.iter().enumerate() {
            if is_stopped() || show.left().is_zero() {
                left = questions.len() - index;
                break;
            }
            show.question(question, index, questions.len());
            // Some take less than their share.
            let share = 2.0 * show.left().as_secs_f64() / (questions.len() - index) as f64;
            answered.insert((question.tunable, question.class.clone()));
            if let Some(entry) = measure::answer(device, question, &tuning, share)? {
                tuning.set(&entry.tunable, &entry.class, &entry.choice);
                faster.push(entry.clone());
                record.entries.push(entry);
            }
        }
        if left > 0 {
            break;
        }
    }
    record.entries.sort_by(|a, b| (&a.tunable, &a.class).cmp(&(&b.tunable, &b.class)));
    show.done(answered.len(), &faster, left);
    Ok(())
}

fn is_about(entry: &Entry, question: &Question) -> bool {
    (entry.tunable.as_str(), &entry.class) == (question.tunable, &question.class)
}

/// How a measurement goes, on standard error.
struct Show {
    start: Instant,
    budget: Duration,
    is_animated: bool,
    last_line: Option<Instant>,
}

/// Without a terminal, a line is printed when this long has passed.
const SILENCE: Duration = Duration::from_secs(15);

impl Show {
    fn new(start: Instant, budget: Duration) -> Self {
        let is_wanted = log::max_level() >= log::LevelFilter::Info;
        Self { start, budget, is_animated: is_wanted && terminal::is_animated(), last_line: None }
    }

    fn left(&self) -> Duration {
        self.budget.saturating_sub(self.start.elapsed())
    }

    fn question(&mut self, question: &Question, done: usize, of: usize) {
        let pace = self.start.elapsed().as_secs_f64() / done.max(1) as f64;
        let expected = if done == 0 { self.left().as_secs_f64() } else { pace * (of - done) as f64 };
        let eta = duration(expected.min(self.left().as_secs_f64()));
        let line =
            format!("measuring kernels {}/{of}  {} of {}  eta {eta}", done + 1, question.tunable, question.class);
        if self.is_animated {
            terminal::show_status(&line);
        } else if self.last_line.is_none_or(|last| last.elapsed() >= SILENCE) {
            log::info!("{line}");
            self.last_line = Some(Instant::now());
        }
    }

    fn done(&self, answered: usize, faster: &[Entry], left: usize) {
        if self.is_animated {
            terminal::clear_status();
        }
        log::info!("{}", summary(answered, self.start.elapsed().as_secs_f64(), faster, left));
    }
}

/// What was measured and what it changes, as a table.
fn summary(answered: usize, seconds: f64, faster: &[Entry], left: usize) -> String {
    let mut text = format!("measured {answered} choices of kernels in {}", duration(seconds));
    text += &match faster.len() {
        0 => ": the rules' are as fast as any".to_owned(),
        n => format!(", of which {n} can be faster than by rule"),
    };
    if left > 0 {
        text += &format!("; {left} were not reached, and rules decide them (device.tune_seconds)");
    }
    if faster.is_empty() {
        return text;
    }
    let widths = [
        faster.iter().map(|entry| entry.class.len()).max().unwrap_or(0),
        faster.iter().map(|entry| entry.rule.len()).max().unwrap_or(0).max("rule".len()),
        faster.iter().map(|entry| entry.choice.len()).max().unwrap_or(0).max("choice".len()),
    ];
    let [class, rule, choice] = widths;
    text += &format!(
        "\n  {:<9}  {:<class$}  {:<rule$} {:>9}  {:<choice$} {:>9}",
        "", "problems", "rule", "ms", "choice", "ms"
    );
    for entry in faster {
        text += &format!(
            "\n  {:<9}  {:<class$}  {:<rule$} {:>9.3}  {:<choice$} {:>9.3}  {:.2} times as fast",
            entry.tunable,
            entry.class,
            entry.rule,
            entry.rule_ms,
            entry.choice,
            entry.choice_ms,
            entry.rule_ms / entry.choice_ms.max(1e-9),
        );
    }
    text
}

#[cfg(test)]
mod tests;
