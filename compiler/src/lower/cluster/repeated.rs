//! Which members of a group the others compute once more.

use std::collections::{BTreeSet, HashMap};

use super::{Clusters, GroupId, Hints, Readers};
use crate::ir::{Graph, Value};
use crate::ops::Class;

impl Clusters {
    /// Decides which members the other groups compute once more: those that cost more bytes to write and to read back than
    /// what they are made of. So a forward kernel does not store what only the backward pass reads, such as normalised rows.
    pub(super) fn repeat(&mut self, graph: &Graph, hints: &Hints, max_inputs: usize, readers: &[Readers]) {
        let is_output: BTreeSet<Value> = graph.outputs().iter().map(|&(_, value)| value).collect();
        let mut inputs: Vec<Vec<Value>> = (0..self.groups.len()).map(|group| self.inputs(graph, group)).collect();
        let mut reading: HashMap<Value, Vec<GroupId>> = HashMap::new();
        for (group, inputs) in inputs.iter().enumerate() {
            inputs.iter().for_each(|&input| reading.entry(input).or_default().push(group));
        }
        let bytes = |value: Value| graph.ty(value).bytes() as i64;
        let may_be_repeated = |value: Value| {
            graph.node(value).op.class() == Class::Elementwise
                && !(is_output.contains(&value) || hints.forced.contains(&value) || hints.barred.contains(&value))
                && !readers[value.index()].need_memory
        };
        for value in graph.values() {
            let Some(own) = self.group_of(value).filter(|_| may_be_repeated(value)) else { continue };
            let Some(groups) = reading.get(&value).cloned() else { continue };
            let is_stored = |part: Value| {
                graph.node(part).op.class() == Class::Leaf || is_output.contains(&part) || reading.contains_key(&part)
            };
            let is_between =
                |part: Value| self.group_of(part) == Some(own) && may_be_repeated(part) && !is_stored(part);
            // Bytes that are neither written nor read any more where the value is made of these parts; none if that is more
            // than a kernel can read.
            let saved = |parts: &BTreeSet<Value>| {
                let newly_stored = parts.iter().filter(|&&part| !is_stored(part));
                let mut saved = bytes(value) - newly_stored.map(|&part| bytes(part)).sum::<i64>();
                for &group in &groups {
                    let new = parts.iter().filter(|part| !inputs[group].contains(part));
                    let (count, size) = new.fold((0, 0), |(count, size), &part| (count + 1, size + bytes(part)));
                    saved += bytes(value) - size;
                    let stores = self.groups[group].members.iter().filter(|&&member| is_stored(member)).count().max(1);
                    if count > 1 && inputs[group].len() + count + stores > max_inputs + 2 {
                        return None;
                    }
                }
                Some(saved)
            };
            let origins = self.origins(graph, value, &is_between);
            let found = origins.into_iter().filter_map(|origin| Some((saved(&origin.parts)?, origin)));
            let Some((saved, origin)) = found.reduce(|best, next| if next.0 > best.0 { next } else { best }) else {
                continue;
            };
            // Where nothing is lost or won, such as with a gate's value and its slope, the next one that is made of the same
            // parts wins.
            let wins_later = || {
                let mut others = self.groups[own].members.iter().filter(|&&other| other > value);
                others.any(|&other| {
                    let is_read = may_be_repeated(other) && reading.contains_key(&other);
                    is_read && self.origins(graph, other, &is_between).iter().any(|of| of.parts == origin.parts)
                })
            };
            if saved < 0 || saved == 0 && !wins_later() {
                continue;
            }
            origin.between.iter().for_each(|between| self.repeated[between.index()] = true);
            self.repeated[value.index()] = true;
            reading.remove(&value);
            for group in groups {
                inputs[group] = self.inputs(graph, group);
                for &input in &inputs[group] {
                    let groups = reading.entry(input).or_default();
                    if !groups.contains(&group) {
                        groups.push(group);
                    }
                }
            }
        }
    }

    /// What a value may be computed from: what it reads; what it reads when all that is stored nowhere is computed, too; and the
    /// same, but for one of those in between.
    fn origins(&self, graph: &Graph, value: Value, is_between: &dyn Fn(Value) -> bool) -> Vec<Origin> {
        let up_to = |stop: &dyn Fn(Value) -> bool| {
            let mut origin = Origin::default();
            let mut open = self.roots(graph, value);
            while let Some(part) = open.pop() {
                if is_between(part) && !stop(part) {
                    if origin.between.insert(part) {
                        open.extend(self.roots(graph, part));
                    }
                } else {
                    origin.parts.insert(part);
                }
            }
            origin
        };
        let all = up_to(&|_| false);
        let but_one = all.between.iter().map(|&one| up_to(&|part| part == one));
        let mut origins = vec![up_to(&|_| true)];
        origins.extend(but_one);
        origins.push(all);
        origins
    }
}

/// A way to compute a value once more.
#[derive(Default)]
struct Origin {
    /// From what.
    parts: BTreeSet<Value>,
    /// What is computed in between.
    between: BTreeSet<Value>,
}
