//! A disk that fails as told, and what a loss of power would leave of what was done with it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::disk::{Disk, DiskFile};
use crate::data::rng::Mt19937;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No space is left, for this operation and all later ones.
    Full,
    /// The process ends here: nothing later happens either. A write may have been half done.
    Killed,
}

/// One operation that was carried out.
#[derive(Clone, Debug)]
enum Op {
    CreateDir(PathBuf),
    Create(PathBuf),
    Write(PathBuf, Vec<u8>),
    SyncFile(PathBuf),
    Rename(PathBuf, PathBuf),
    RemoveDir(PathBuf),
    SyncDir(PathBuf),
}

#[derive(Debug, Default)]
struct State {
    done: Vec<Op>,
    fault: Option<(usize, Fault)>,
    available: Option<u64>,
}

/// The machine's disk with a log, whose n-th operation fails if it is told so.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

impl FaultyDisk {
    /// A disk whose operation `at`, counted from 0, fails, and all after it.
    pub(crate) fn failing(at: usize, fault: Fault) -> Self {
        let disk = Self::default();
        disk.state.lock().unwrap().fault = Some((at, fault));
        disk
    }

    /// A disk that claims to have this many bytes left.
    pub(crate) fn with_available(bytes: u64) -> Self {
        let disk = Self::default();
        disk.state.lock().unwrap().available = Some(bytes);
        disk
    }

    /// Operations that were carried out.
    pub(crate) fn operations(&self) -> usize {
        self.state.lock().unwrap().done.len()
    }

    /// Whether the fault has come about.
    pub(crate) fn has_failed(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.fault.is_some_and(|(at, _)| state.done.len() >= at)
    }

    fn carry_out(&self, op: Op, act: impl FnOnce(bool) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        match state.fault {
            Some((at, fault)) if state.done.len() >= at => {
                // The operation itself may be half done, all others are not reached.
                if state.done.len() == at && matches!(op, Op::Write(..)) {
                    act(true)?;
                }
                Err(match fault {
                    Fault::Full => ErrorKind::StorageFull.into(),
                    Fault::Killed => io::Error::other("killed"),
                })
            }
            _ => {
                act(false)?;
                state.done.push(op);
                Ok(())
            }
        }
    }

    /// What the disk may hold if the power fails after operation `after`, written to `to`. Paths of the log start with
    /// `root`. What was not flushed is there, missing, or there in part, as `random` decides.
    pub(crate) fn after_power_loss(&self, root: &Path, after: usize, random: &mut Mt19937, to: &Path) {
        let state = self.state.lock().unwrap();
        let mut tree = Tree { nodes: vec![Node::dir()] };
        for op in &state.done[..after] {
            tree.apply(root, op);
        }
        tree.write(0, random, to);
    }
}

impl Disk for FaultyDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.carry_out(Op::CreateDir(path.into()), |_| fs::create_dir(path))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.carry_out(Op::Create(path.into()), |_| fs::write(path, []))?;
        Ok(Box::new(FaultyFile { disk: self.clone(), path: path.into() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.carry_out(Op::Rename(from.into(), to.into()), |_| fs::rename(from, to))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.carry_out(Op::RemoveDir(path.into()), |_| fs::remove_dir_all(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.carry_out(Op::SyncDir(path.into()), |_| Ok(()))
    }

    fn available(&self, _path: &Path) -> Option<u64> {
        self.state.lock().unwrap().available
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    path: PathBuf,
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.carry_out(Op::Write(self.path.clone(), bytes.to_vec()), |torn| {
            let mut file = fs::OpenOptions::new().append(true).open(&self.path)?;
            file.write_all(if torn { &bytes[..bytes.len() / 2] } else { bytes })
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for FaultyFile {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.carry_out(Op::SyncFile(self.path.clone()), |_| Ok(()))
    }
}

/// A file system of which a part is on the disk and the rest in memory only.
struct Tree {
    nodes: Vec<Node>,
}

enum Node {
    File {
        content: Vec<u8>,
        /// Bytes that were flushed.
        flushed: usize,
    },
    Dir {
        /// Names as programs see them.
        names: BTreeMap<String, usize>,
        /// Names on the disk.
        flushed: BTreeMap<String, usize>,
        /// What leads from one to the other: a name comes, or goes.
        pending: Vec<(String, Option<usize>)>,
    },
}

impl Node {
    fn dir() -> Self {
        Self::Dir { names: BTreeMap::new(), flushed: BTreeMap::new(), pending: Vec::new() }
    }
}

impl Tree {
    fn apply(&mut self, root: &Path, op: &Op) {
        match op {
            Op::CreateDir(path) => self.add(root, path, Node::dir()),
            Op::Create(path) => self.add(root, path, Node::File { content: Vec::new(), flushed: 0 }),
            Op::Write(path, bytes) => {
                let at = self.find(root, path);
                if let Node::File { content, .. } = &mut self.nodes[at] {
                    content.extend(bytes);
                }
            }
            Op::SyncFile(path) => {
                let at = self.find(root, path);
                if let Node::File { content, flushed } = &mut self.nodes[at] {
                    *flushed = content.len();
                }
            }
            Op::Rename(from, to) => {
                let node = self.find(root, from);
                self.name(root, from, None);
                self.name(root, to, Some(node));
            }
            Op::RemoveDir(path) => {
                let at = self.find(root, path);
                if let Node::Dir { names, pending, .. } = &mut self.nodes[at] {
                    pending.extend(std::mem::take(names).into_keys().map(|name| (name, None)));
                }
                self.name(root, path, None);
            }
            Op::SyncDir(path) => {
                let at = self.find(root, path);
                if let Node::Dir { names, flushed, pending } = &mut self.nodes[at] {
                    *flushed = names.clone();
                    pending.clear();
                }
            }
        }
    }

    fn add(&mut self, root: &Path, path: &Path, node: Node) {
        self.nodes.push(node);
        self.name(root, path, Some(self.nodes.len() - 1));
    }

    fn name(&mut self, root: &Path, path: &Path, node: Option<usize>) {
        let parent = self.find(root, path.parent().unwrap());
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Node::Dir { names, pending, .. } = &mut self.nodes[parent] else { panic!("{}", path.display()) };
        match node {
            Some(node) => names.insert(name.clone(), node),
            None => names.remove(&name),
        };
        pending.push((name, node));
    }

    fn find(&self, root: &Path, path: &Path) -> usize {
        let relative = path.strip_prefix(root).unwrap();
        relative.iter().fold(0, |at, name| match &self.nodes[at] {
            Node::Dir { names, .. } => names[name.to_str().unwrap()],
            Node::File { .. } => panic!("{} is a file", path.display()),
        })
    }

    /// Writes what is left of a node.
    fn write(&self, at: usize, random: &mut Mt19937, to: &Path) {
        let mut draw = |limit: usize| random.next_u32() as usize % (limit + 1);
        match &self.nodes[at] {
            Node::File { content, flushed } => {
                let kept = flushed + draw(content.len() - flushed);
                let mut left = content[..kept].to_vec();
                if draw(1) == 1 {
                    // The length has reached the disk, the bytes have not.
                    left.resize(content.len(), 0);
                }
                fs::write(to, left).unwrap();
            }
            Node::Dir { flushed, pending, .. } => {
                let mut names = flushed.clone();
                for (name, node) in &pending[..draw(pending.len())] {
                    match node {
                        Some(node) => names.insert(name.clone(), *node),
                        None => names.remove(name),
                    };
                }
                fs::create_dir_all(to).unwrap();
                for (name, node) in names {
                    self.write(node, random, &to.join(name));
                }
            }
        }
    }
}
