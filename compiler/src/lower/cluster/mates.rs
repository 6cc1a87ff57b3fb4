//! Mates: values that one launch of a hand-tuned kernel computes together.

use super::{Clusters, GroupId, Hints, Kind};
use crate::ir::{Graph, Value};

impl Clusters {
    /// The group of a hand-tuned kernel that computes `value` as well, if there is one already.
    pub(super) fn mate(&self, graph: &Graph, value: Value, hints: &Hints) -> Option<GroupId> {
        let node = graph.node(value);
        let launch = node.op.launch(&node.args).filter(|_| !hints.barred.contains(&value))?;
        let takes = |group: &GroupId| {
            let members = &self.groups[*group].members;
            self.groups[*group].kind == Kind::Single
                && members
                    .iter()
                    .map(|&member| graph.node(member))
                    .all(|member| member.op != node.op && member.op.launch(&member.args).as_ref() == Some(&launch))
        };
        let group = (0..self.groups.len()).find(takes)?;
        let sources = self.roots(graph, value).into_iter().filter_map(|root| self.group_of(root));
        (!sources.into_iter().any(|source| self.depends(graph, source, group))).then_some(group)
    }

    pub(super) fn join(&mut self, value: Value, group: GroupId) {
        self.group_of[value.index()] = Some(group);
        self.groups[group].members.push(value);
    }
}
