//! Which slot holds which intermediate value, and an independent check that no value is overwritten while it is needed.
//!
//! A slot is a whole buffer, bound from its first byte: wgpu tracks usage per buffer, so values that share one large
//! buffer would serialise every launch. Values take the best-fitting free slot in the order in which they are born.

use std::collections::{HashMap, HashSet};

use crate::ir::{Graph, Value};
use crate::lower::{Memory, Step};

/// Slots are multiples of this many bytes, so that a slot can be bound as an array of `vec4`.
const GRANULE: u64 = 16;

/// The assignment of values to slots.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotPlan {
    /// Size of each slot in bytes.
    pub(crate) slots: Vec<u64>,
    /// The slot of every intermediate value.
    pub(crate) slot_of: HashMap<Value, usize>,
    /// Largest sum of values alive at one time.
    pub(crate) lower_bound: u64,
}

/// Assigns slots for the given order of steps.
pub(crate) fn assign(graph: &Graph, steps: &[Step], memory: &Memory) -> SlotPlan {
    let mut last_use: HashMap<Value, usize> = HashMap::new();
    for (index, step) in steps.iter().enumerate() {
        step.reads.iter().chain(&step.writes).for_each(|&value| {
            last_use.insert(value, index);
        });
    }
    let internal = |value: &Value| !memory.external.contains_key(value);
    let bytes = |value: Value| graph.ty(value).bytes().next_multiple_of(GRANULE).max(GRANULE);
    let mut plan = SlotPlan::default();
    let mut free: Vec<usize> = Vec::new();
    let mut alive = 0;
    for (index, step) in steps.iter().enumerate() {
        for &value in step.writes.iter().filter(|v| internal(v)) {
            let need = bytes(value);
            // The smallest slot that is large enough, else the largest that is not: it grows.
            let fitting = free.iter().copied().filter(|&s| plan.slots[s] >= need).min_by_key(|&s| (plan.slots[s], s));
            let chosen = fitting.or_else(|| free.iter().copied().max_by_key(|&s| (plan.slots[s], s)));
            let slot = match chosen {
                Some(slot) => {
                    free.retain(|&s| s != slot);
                    plan.slots[slot] = plan.slots[slot].max(need);
                    slot
                }
                None => {
                    plan.slots.push(need);
                    plan.slots.len() - 1
                }
            };
            plan.slot_of.insert(value, slot);
            alive += need;
        }
        plan.lower_bound = plan.lower_bound.max(alive);
        let mut ended = HashSet::new();
        for &value in step.reads.iter().chain(&step.writes).filter(|v| internal(v)) {
            if last_use[&value] == index && ended.insert(value) {
                free.push(plan.slot_of[&value]);
                alive -= bytes(value);
            }
        }
    }
    plan
}

/// Replays the steps on a model of the slots and reports the first read of something that is not there any more, the
/// first slot that is too small, and the first launch that reads and writes one slot.
pub(crate) fn check(graph: &Graph, steps: &[Step], memory: &Memory, plan: &SlotPlan) -> Result<(), String> {
    let mut content: HashMap<usize, Value> = HashMap::new();
    for step in steps {
        let slot = |value: Value| plan.slot_of.get(&value).copied();
        for &value in step.reads.iter().filter(|v| !memory.external.contains_key(v)) {
            let slot = slot(value).ok_or_else(|| format!("`{}` reads {value}, which has no slot", step.label))?;
            if content.get(&slot) != Some(&value) {
                return Err(format!(
                    "`{}` reads {value} from slot {slot}, which holds {:?}",
                    step.label,
                    content.get(&slot)
                ));
            }
        }
        for &value in step.writes.iter().filter(|v| !memory.external.contains_key(v)) {
            let slot = slot(value).ok_or_else(|| format!("`{}` writes {value}, which has no slot", step.label))?;
            if plan.slots[slot] < graph.ty(value).bytes() {
                return Err(format!("slot {slot} is too small for {value}"));
            }
            let shared =
                step.reads.iter().chain(&step.writes).any(|&v| v != value && plan.slot_of.get(&v) == Some(&slot));
            if shared {
                return Err(format!("`{}` uses slot {slot} for {value} and for something else", step.label));
            }
            content.insert(slot, value);
        }
    }
    Ok(())
}
