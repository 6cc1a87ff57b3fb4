//! What the frozen networks make of pictures, computed once for each picture of a run.
//!
//! Vision tower, teacher and autoencoder are never trained, so a later epoch would compute the same numbers again. They are kept in host
//! memory by the picture's pixels, and uploaded where all pictures of a micro-batch are known; the step's graph reads
//! them from the same place either way, bit for bit.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use sha2::{Digest, Sha256};
use viral_compiler::{Graph, Options, Target};
use viral_runtime::{Buffer, Executable, Stream, Ticket};

use super::replay;
use crate::config::Config;
use crate::data::Bucket;
use crate::engine::bundle::Networks;
use crate::engine::{step_graph, stored};
use crate::error::Result;
use crate::measure::Profiler;

/// Names of the values, in the order in which they are kept.
const VALUES: [&str; 3] = [step_graph::FEATURES, step_graph::TARGETS, step_graph::LATENTS];

/// What a plan of the frozen networks is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pictures {
    /// A picture that has nothing on it.
    Blank,
    /// The squares of a micro-batch.
    Seen(Squares),
}

/// The squares that the vision tower sees for a micro-batch: whole pictures and, behind them, tiles of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Squares {
    images: usize,
    tiles: usize,
}

impl From<Bucket> for Squares {
    fn from(bucket: Bucket) -> Self {
        Self { images: bucket.images, tiles: bucket.tiles }
    }
}

impl Squares {
    /// How many squares a value of [`VALUES`] is of: the tower sees all, teacher and autoencoder whole pictures.
    fn of(self, value: usize) -> usize {
        if VALUES.get(value) == Some(&step_graph::FEATURES) { self.images + self.tiles } else { self.images }
    }
}

/// The graphs of the frozen networks, by what they see.
pub(crate) fn sources(
    config: &Config,
    networks: &Networks,
    buckets: &BTreeSet<Bucket>,
    target: &Target,
) -> Vec<(Pictures, Graph, Options)> {
    let seen: BTreeSet<Squares> =
        buckets.iter().map(|&bucket| bucket.into()).filter(|squares: &Squares| squares.images > 0).collect();
    let any = |holds: &dyn Fn(&Bucket) -> bool| buckets.iter().any(holds);
    let graph = |squares: Squares| {
        let is_of = |bucket: &Bucket| Squares::from(*bucket) == squares;
        let reconstructs = |bucket: &Bucket| step_graph::reconstructs(config, bucket.batch, bucket.images);
        let latents = any(&|bucket| is_of(bucket) && reconstructs(bucket));
        let squares_of = [squares.images, squares.tiles];
        (Pictures::Seen(squares), step_graph::build_features(config, networks, squares_of, latents))
    };
    let blank = any(&|bucket| step_graph::needs_blank(config, bucket.batch, bucket.images));
    let blank = blank.then(|| (Pictures::Blank, step_graph::build_blank(networks)));
    let graphs = blank.into_iter().chain(seen.into_iter().map(graph));
    let with_options = |(pictures, graph): (Pictures, Graph)| {
        let options = stored::options(config, &graph, target);
        (pictures, graph, options)
    };
    graphs.map(with_options).collect()
}

/// The plans of the frozen networks, and what they have yielded.
pub(super) struct Features {
    plans: BTreeMap<Pictures, Executable>,
    /// Whether the features of a blank picture lie where they are read.
    blank_is_known: bool,
    /// Empty where no picture comes twice.
    cache: Cache,
}

/// The content of a square, and what it was computed together with: kernels may sum in another order for another number
/// of rows, and a resumed run, which remembers nothing, must find the same bits.
type Key = [u8; 32];

/// Features of squares, up to a number of bytes: what comes first stays, since every epoch asks for all in turn.
#[derive(Default)]
struct Cache {
    limit: u64,
    bytes: u64,
    /// For each square its part of each of [`VALUES`]; a tile has no part of the teacher's.
    squares: HashMap<Key, Vec<Vec<u8>>>,
    /// Features under way from the device, with the squares they belong to.
    pending: VecDeque<(Squares, Vec<Key>, Vec<Ticket>)>,
}

impl Features {
    /// Keeps up to `limit` bytes; 0 where no picture comes twice.
    pub(super) fn new(plans: BTreeMap<Pictures, Executable>, limit: u64, stream: &mut Stream) -> Result<Self> {
        let this = Self { plans, blank_is_known: false, cache: Cache { limit, ..Cache::default() } };
        if limit > 0 {
            // Has the stream allocate the memory through which features come back.
            for plan in this.plans.values() {
                let ports: Vec<Port<'_>> = ports(plan).chain(ports(plan)).collect();
                let tickets = ports.iter().map(|port| port.read(stream)).collect::<Result<Vec<_>>>()?;
                tickets.into_iter().try_for_each(|ticket| stream.take(ticket).map(drop))?;
            }
        }
        Ok(this)
    }

    /// Puts the features of pictures and tiles where the step's plan reads them. // pixels (I+J, 3, H, W)
    pub(super) fn provide(
        &mut self,
        stream: &mut Stream,
        profiler: &mut Option<Profiler>,
        squares: Squares,
        pixels: &[f32],
    ) -> Result<()> {
        let Some(plan) = self.plans.get(&Pictures::Seen(squares)) else { return Ok(()) };
        if let Some(blank) = self.plans.get(&Pictures::Blank).filter(|_| !self.blank_is_known) {
            replay(stream, profiler, blank)?;
            self.blank_is_known = true;
        }
        let ports: Vec<Port<'_>> = ports(plan).collect();
        let keys = self.cache.keys(squares, pixels);
        self.cache.collect(stream)?;
        if let Some(known) = self.cache.find(&keys) {
            for (value, port) in ports.iter().enumerate() {
                let count = squares.of(value);
                for (square, values) in known.iter().enumerate().take(count) {
                    let at = port.offset + square as u64 * (port.bytes / count as u64);
                    stream.write(port.buffer, at, &values[value])?;
                }
            }
            return Ok(());
        }
        if let Some(input) = plan.input(viral_model::graph::BatchInput::Pixels.name()) {
            stream.write(&input.buffer, input.offset, bytemuck::cast_slice(pixels))?;
        }
        replay(stream, profiler, plan)?;
        if self.cache.has_room() && !keys.is_empty() {
            let tickets = ports.iter().map(|port| port.read(stream)).collect::<Result<Vec<_>>>()?;
            self.cache.pending.push_back((squares, keys, tickets));
        }
        Ok(())
    }
}

/// Where a plan leaves a value.
struct Port<'p> {
    buffer: &'p Buffer,
    offset: u64,
    bytes: u64,
}

fn ports(plan: &Executable) -> impl Iterator<Item = Port<'_>> {
    let ports = VALUES.iter().filter_map(|name| plan.output(name));
    ports.map(|port| Port { buffer: &port.buffer, offset: port.offset, bytes: port.bytes })
}

impl Port<'_> {
    fn read(&self, stream: &mut Stream) -> Result<Ticket> {
        Ok(stream.read_later(self.buffer, self.offset..self.offset + self.bytes)?)
    }
}

impl Cache {
    fn has_room(&self) -> bool {
        self.bytes < self.limit
    }

    /// The squares' names; none where nothing is kept.
    fn keys(&self, squares: Squares, pixels: &[f32]) -> Vec<Key> {
        let Squares { images, tiles } = squares;
        if self.limit == 0 || images == 0 {
            return Vec::new();
        }
        let together = Sha256::new_with_prefix(images.to_le_bytes()).chain_update(tiles.to_le_bytes());
        let hash = |(at, square): (usize, &[f32])| {
            let is_tile = [u8::from(at >= images)];
            let content = bytemuck::cast_slice::<f32, u8>(square);
            together.clone().chain_update(is_tile).chain_update(content).finalize().into()
        };
        pixels.chunks_exact((pixels.len() / (images + tiles)).max(1)).enumerate().map(hash).collect()
    }

    /// What all of these squares yielded, if all are known.
    fn find(&self, keys: &[Key]) -> Option<Vec<&Vec<Vec<u8>>>> {
        if keys.is_empty() { None } else { keys.iter().map(|key| self.squares.get(key)).collect() }
    }

    /// Takes in what has been computed, but for the last micro-batch, which may still be under way.
    fn collect(&mut self, stream: &mut Stream) -> Result<()> {
        while self.pending.len() > 1 {
            let Some((squares, keys, tickets)) = self.pending.pop_front() else { break };
            let values =
                tickets.into_iter().map(|ticket| stream.take(ticket)).collect::<std::result::Result<Vec<_>, _>>()?;
            for (square, key) in keys.iter().enumerate() {
                if !self.has_room() || self.squares.contains_key(key) {
                    continue;
                }
                let part = |(value, bytes): (usize, &Vec<u8>)| {
                    let count = squares.of(value);
                    let length = bytes.len() / count.max(1);
                    (square < count).then(|| bytes[square * length..(square + 1) * length].to_vec())
                };
                let parts: Vec<Vec<u8>> = values.iter().enumerate().filter_map(part).collect();
                self.bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
                self.squares.insert(*key, parts);
            }
        }
        Ok(())
    }
}
