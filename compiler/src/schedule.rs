//! The order of kernel launches.

use std::collections::{BTreeSet, HashMap};

use crate::ir::Value;
use crate::lower::{Failure, Memory, Step};

/// Orders steps so that every value is written before it is read, and a state tensor is replaced after its last reader.
/// Where that is impossible, because a reader of the old state needs the new one as well, the new one must be set aside.
///
/// Among the steps that could come next, the one whose values were born first does: forward before backward, layer after
/// layer, which is also how memory is freed early. What is computed counts, not what is stored: a product that is added to a
/// gradient's state belongs where the product is, though the sum is written down at the end.
pub(crate) fn schedule(steps: Vec<Step>, memory: &Memory) -> Result<Vec<Step>, Failure> {
    let mut writer: HashMap<Value, usize> = HashMap::new();
    let mut readers: HashMap<Value, Vec<usize>> = HashMap::new();
    for (index, step) in steps.iter().enumerate() {
        step.writes.iter().for_each(|&value| {
            writer.insert(value, index);
        });
        step.reads.iter().for_each(|&value| readers.entry(value).or_default().push(index));
    }
    let mut before: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); steps.len()];
    for (index, step) in steps.iter().enumerate() {
        before[index].extend(step.reads.iter().filter_map(|value| writer.get(value)));
        for state in step.writes.iter().filter_map(|&value| memory.replaces(value)) {
            before[index].extend(readers.get(&state).into_iter().flatten());
        }
        before[index].remove(&index);
    }
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    for (index, before) in before.iter().enumerate() {
        before.iter().for_each(|&earlier| after[earlier].push(index));
    }
    let birth = |index: usize| (steps[index].birth, index);
    let mut waiting: Vec<usize> = before.iter().map(BTreeSet::len).collect();
    let mut ready: BTreeSet<_> = (0..steps.len()).filter(|&index| waiting[index] == 0).map(birth).collect();
    let mut order = Vec::with_capacity(steps.len());
    while let Some((_, index)) = ready.pop_first() {
        order.push(index);
        for &next in &after[index] {
            waiting[next] -= 1;
            if waiting[next] == 0 {
                ready.insert(birth(next));
            }
        }
    }
    if order.len() < steps.len() {
        // Only a step that somebody waits for can be part of a circle.
        let stuck = (0..steps.len()).filter(|&index| waiting[index] > 0 && !after[index].is_empty());
        let mut replacing = stuck.flat_map(|index| &steps[index].writes).filter(|&&v| memory.replaces(v).is_some());
        return Err(replacing.next().map_or(Failure::Stuck, |&value| Failure::SetAside(value)));
    }
    let mut steps: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|index| steps[index].take()).collect())
}
