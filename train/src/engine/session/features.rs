//! What the frozen networks make of pictures, computed once for each picture of a run.
//!
//! Vision tower, teacher and autoencoder are never trained, so a later epoch or run would compute the same numbers again. They are
//! kept by the picture's pixels (`features/cache.rs`), and uploaded where all pictures of a micro-batch are known; the step's
//! graph reads them from the same place either way, bit for bit.

mod cache;

use std::collections::{BTreeMap, BTreeSet};

use viral_compiler::plan::Plan;
use viral_compiler::types::TensorType;
use viral_compiler::{Graph, Options, Target};
use viral_runtime::{Buffer, Executable, Stream, Ticket};

use super::replay;
use crate::config::Config;
use crate::data::Bucket;
use crate::engine::bundle::Networks;
use crate::engine::{step_graph, stored};
use crate::error::Result;
use crate::measure::Profiler;
use crate::store::FeatureValue;
pub(crate) use cache::{Cache, Keep};

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

    /// A square's part of each value of a plan.
    fn values(self, plan: &Plan) -> Vec<FeatureValue> {
        let ports = VALUES.iter().filter_map(|name| plan.outputs.iter().find(|port| port.name == *name));
        let of_square = ports.enumerate().map(|(value, port)| {
            let mut shape = port.ty.shape.clone();
            if let Some(rows) = shape.first_mut() {
                *rows /= self.of(value).max(1);
            }
            FeatureValue { name: port.name.clone(), ty: TensorType::new(port.ty.dtype, shape) }
        });
        of_square.collect()
    }

    /// Those of `values` that the square at this place has a part of.
    fn of_square(self, square: usize, values: &[FeatureValue]) -> &[FeatureValue] {
        let has_part = (0..values.len()).take_while(|&value| square < self.of(value));
        &values[..has_part.count()]
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
    cache: Cache,
}

impl Features {
    pub(super) fn new(plans: BTreeMap<Pictures, Executable>, cache: Cache, stream: &mut Stream) -> Result<Self> {
        let this = Self { plans, blank_is_known: false, cache };
        if this.cache.keeps() {
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
        if let Some(known) = self.cache.find(squares, &keys) {
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
        if self.cache.wants(squares, &keys) {
            let tickets = ports.iter().map(|port| port.read(stream)).collect::<Result<Vec<_>>>()?;
            self.cache.expect(squares, keys, tickets);
        }
        Ok(())
    }

    /// Keeps what is still under way where later runs look for it.
    pub(super) fn finish(&mut self, stream: &mut Stream) -> Result<()> {
        self.cache.finish(stream)
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
