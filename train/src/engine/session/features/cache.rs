//! Features that are known: in host memory for later epochs, in files for later runs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use viral_compiler::plan::Plan;
use viral_runtime::{AdapterReport, Stream, Ticket};

use super::{Pictures, Squares};
use crate::config::TrainConfig;
use crate::engine::init::Contents;
use crate::error::Result;
use crate::store::{FeatureFolder, FeatureValue, hex};

/// What may be kept, and where.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Keep<'a> {
    /// Bytes in host memory.
    pub(crate) memory: u64,
    /// A folder, and the bytes that it may hold.
    pub(crate) folder: Option<(&'a Path, u64)>,
}

impl<'a> Keep<'a> {
    /// What a configuration asks for, in a run in which pictures come more than once or not.
    pub(crate) fn of(train: &'a TrainConfig, repeats: bool) -> Self {
        let bytes = |mebibytes: usize| (mebibytes as u64) << 20;
        // Nobody asks again for a picture that comes once, but a later run.
        let memory = if repeats { bytes(train.feature_cache) } else { 0 };
        let folder = train.feature_dir.as_deref().map(|folder| (folder, bytes(train.feature_dir_limit)));
        Self { memory, folder }
    }
}

/// The content of a square, and what it was computed together with: kernels may sum in another order for another number
/// of rows, and a resumed run, which remembers nothing, must find the same bits.
pub(super) type Key = [u8; 32];

/// A square's part of each value; a tile has no part of the teacher's.
pub(super) type Parts = Arc<Vec<Vec<u8>>>;

/// Features of squares. In memory what comes first stays, up to a number of bytes, since every epoch asks for all in turn.
#[derive(Default)]
pub(crate) struct Cache {
    limit: u64,
    bytes: u64,
    squares: HashMap<Key, Parts>,
    /// Features under way from the device, with the squares they belong to.
    pending: VecDeque<(Squares, Vec<Key>, Vec<Ticket>)>,
    folder: Option<FeatureFolder>,
    /// By what is seen together: what the values of a square are, and the folder's name for everything that they depend on.
    families: BTreeMap<Squares, (Vec<FeatureValue>, String)>,
}

impl Cache {
    /// For features that these plans of frozen networks compute out of these contents on this device.
    pub(crate) fn new(
        keep: Keep<'_>,
        plans: &[(Pictures, Plan)],
        contents: &dyn Contents,
        adapter: &AdapterReport,
    ) -> Result<Self> {
        let mut cache = Self { limit: keep.memory, ..Self::default() };
        if let Some((root, limit)) = keep.folder {
            cache.folder = Some(FeatureFolder::open(root, limit)?);
            let mut tensors = HashMap::new();
            for (pictures, plan) in plans {
                if let Pictures::Seen(squares) = *pictures {
                    let family = family(plan, contents, adapter, &mut tensors)?;
                    cache.families.insert(squares, (squares.values(plan), family));
                }
            }
        }
        Ok(cache)
    }

    /// Whether anything is ever kept.
    pub(super) fn keeps(&self) -> bool {
        self.limit > 0 || self.folder.is_some()
    }

    /// Whether there is a use for the features of these squares.
    pub(super) fn wants(&self, squares: Squares, keys: &[Key]) -> bool {
        let in_folder = self.folder.as_ref().zip(self.families.get(&squares));
        let for_folder =
            in_folder.is_some_and(|(folder, (_, family))| keys.iter().any(|key| folder.wants(family, key)));
        !keys.is_empty() && (self.has_room() || for_folder)
    }

    /// The squares' names; none where nothing is kept.
    pub(super) fn keys(&self, squares: Squares, pixels: &[f32]) -> Vec<Key> {
        let Squares { images, tiles } = squares;
        if !self.keeps() || images == 0 {
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
    pub(super) fn find(&mut self, squares: Squares, keys: &[Key]) -> Option<Vec<Parts>> {
        if keys.is_empty() {
            return None;
        }
        keys.iter().enumerate().map(|(square, key)| self.known(squares, square, key)).collect()
    }

    fn known(&mut self, squares: Squares, square: usize, key: &Key) -> Option<Parts> {
        if let Some(parts) = self.squares.get(key) {
            return Some(Arc::clone(parts));
        }
        let (values, family) = self.families.get(&squares)?;
        let loaded = self.folder.as_ref()?.load(family, key, squares.of_square(square, values))?;
        let parts = Arc::new(loaded);
        self.remember(key, &parts);
        Some(parts)
    }

    /// Keeps features that are on their way from the device.
    pub(super) fn expect(&mut self, squares: Squares, keys: Vec<Key>, tickets: Vec<Ticket>) {
        self.pending.push_back((squares, keys, tickets));
    }

    /// Takes in what has been computed, but for the last micro-batch, which may still be under way.
    pub(super) fn collect(&mut self, stream: &mut Stream) -> Result<()> {
        while self.pending.len() > 1 {
            self.collect_next(stream)?;
        }
        Ok(())
    }

    /// Takes in all that has been computed, for later runs.
    pub(super) fn finish(&mut self, stream: &mut Stream) -> Result<()> {
        while self.folder.is_some() && !self.pending.is_empty() {
            self.collect_next(stream)?;
        }
        Ok(())
    }

    fn collect_next(&mut self, stream: &mut Stream) -> Result<()> {
        let Some((squares, keys, tickets)) = self.pending.pop_front() else { return Ok(()) };
        let yielded =
            tickets.into_iter().map(|ticket| stream.take(ticket)).collect::<std::result::Result<Vec<_>, _>>()?;
        for (square, key) in keys.iter().enumerate() {
            let family = self
                .families
                .get(&squares)
                .filter(|(_, family)| self.folder.as_ref().is_some_and(|folder| folder.wants(family, key)));
            if family.is_none() && (!self.has_room() || self.squares.contains_key(key)) {
                continue;
            }
            let part = |(value, bytes): (usize, &Vec<u8>)| {
                let count = squares.of(value);
                let length = bytes.len() / count.max(1);
                (square < count).then(|| bytes[square * length..(square + 1) * length].to_vec())
            };
            let parts: Parts = Arc::new(yielded.iter().enumerate().filter_map(part).collect());
            if let Some((folder, (values, family))) = self.folder.as_mut().zip(family) {
                folder.save(family, key, squares.of_square(square, values), &parts);
            }
            self.remember(key, &parts);
        }
        Ok(())
    }

    fn remember(&mut self, key: &Key, parts: &Parts) {
        if self.has_room() && !self.squares.contains_key(key) {
            self.bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
            self.squares.insert(*key, Arc::clone(parts));
        }
    }

    fn has_room(&self) -> bool {
        self.bytes < self.limit
    }
}

/// A name for all that features depend on besides the picture: the device and its driver, every kernel and launch, and the
/// content of every frozen tensor. `tensors` are the hashes of those that are known already.
fn family(
    plan: &Plan,
    contents: &dyn Contents,
    adapter: &AdapterReport,
    tensors: &mut HashMap<String, Key>,
) -> Result<String> {
    let mut hash =
        Sha256::new_with_prefix(adapter.with_driver()).chain_update(plan.to_string()).chain_update(&plan.params);
    for kernel in &plan.kernels {
        hash.update(&kernel.wgsl);
    }
    for port in &plan.state {
        let known = match tensors.get(&port.name) {
            Some(known) => *known,
            None => {
                let mut content = Sha256::new();
                contents.frozen(&port.name, &port.ty, &mut |piece| {
                    content.update(bytemuck::cast_slice::<f32, u8>(piece));
                    Ok(())
                })?;
                let digest: Key = content.finalize().into();
                tensors.insert(port.name.clone(), digest);
                digest
            }
        };
        hash.update(known);
    }
    Ok(hex(&hash.finalize()[..8]))
}
