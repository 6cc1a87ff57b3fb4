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
            let parts = self.roots(graph, value);
            let is_stored = |part: Value, reading: &HashMap<Value, Vec<GroupId>>| {
                graph.node(part).op.class() == Class::Leaf || is_output.contains(&part) || reading.contains_key(&part)
            };
            let mut saved = bytes(value);
            let newly_stored = parts.iter().filter(|&&part| !is_stored(part, &reading));
            saved -= newly_stored.map(|&part| bytes(part)).sum::<i64>();
            let mut fits = true;
            for &group in &groups {
                let new = parts.iter().filter(|part| !inputs[group].contains(part));
                let (count, size) = new.fold((0, 0), |(count, size), &part| (count + 1, size + bytes(part)));
                saved += bytes(value) - size;
                let members = self.groups[group].members.iter();
                let stores = members.filter(|&&member| is_stored(member, &reading)).count().max(1);
                fits &= count <= 1 || inputs[group].len() + count + stores <= max_inputs + 2;
            }
            // Where nothing is lost or won, such as with a gate's value and its slope, the next one that is made of the same
            // parts wins.
            let wins_later = || {
                let mut others = self.groups[own].members.iter().filter(|&&other| other > value);
                others.any(|&other| {
                    may_be_repeated(other) && reading.contains_key(&other) && self.roots(graph, other) == parts
                })
            };
            if !fits || saved < 0 || saved == 0 && !wins_later() {
                continue;
            }
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
}
