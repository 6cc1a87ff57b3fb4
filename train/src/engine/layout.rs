//! Where trained tensors, their gradients and their moments lie on the device.
//!
//! Tensors that are updated alike (same learning rate, same decay) form a group. A group owns four flat buffers of equal
//! layout, so that the optimiser is one kernel over each group, however many tensors there are.

use std::collections::HashMap;

use viral_compiler::Placement;
use viral_compiler::types::TensorType;

use super::step_graph::gradient_name;

/// Tensors start at multiples of this many bytes: the largest alignment that a device may ask of a binding.
const ALIGN: usize = 256;

/// Which learning rate a tensor follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rate {
    /// `train.lr`: adapters and all modules but the next.
    Main,
    /// `train.projector_lr`: the multi-modal projector.
    Projector,
}

/// Tensors that are updated alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) rate: Rate,
    pub(crate) decays: bool,
    /// Elements, padding included.
    pub(crate) len: usize,
}

impl Group {
    /// What the group is called in figures.
    pub(crate) fn name(&self) -> &'static str {
        match (self.rate, self.decays) {
            (Rate::Main, true) => "main",
            (Rate::Main, false) => "main_no_decay",
            (Rate::Projector, true) => "projector",
            (Rate::Projector, false) => "projector_no_decay",
        }
    }
}

/// A trained tensor's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) ty: TensorType,
    pub(crate) group: usize,
    /// First byte in each of the group's buffers.
    pub(crate) offset: u64,
}

/// The whole trainable memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) groups: Vec<Group>,
    pub(crate) entries: Vec<Entry>,
}

/// The four buffers of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flat {
    Param,
    Grad,
    FirstMoment,
    SecondMoment,
}

impl Flat {
    pub(crate) const ALL: [Flat; 4] = [Flat::Param, Flat::Grad, Flat::FirstMoment, Flat::SecondMoment];

    /// What the buffer holds.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Flat::Param => "params",
            Flat::Grad => "grads",
            Flat::FirstMoment => "first_moments",
            Flat::SecondMoment => "second_moments",
        }
    }

    /// Name of the buffer of a group.
    pub(crate) fn buffer(self, group: usize) -> String {
        format!("{}.{group}", self.name())
    }
}

impl Layout {
    /// Lays out trained tensors, given by name and type.
    pub(crate) fn new(mut params: Vec<(String, TensorType)>) -> Self {
        params.sort_by(|a, b| a.0.cmp(&b.0));
        let mut layout = Self { groups: Vec::new(), entries: Vec::new() };
        for (name, ty) in params {
            let (rate, decays) = (rate_of(&name), decays(&name));
            let known = layout.groups.iter().position(|group| (group.rate, group.decays) == (rate, decays));
            let group = known.unwrap_or_else(|| {
                layout.groups.push(Group { rate, decays, len: 0 });
                layout.groups.len() - 1
            });
            let offset = layout.groups[group].len as u64 * 4;
            layout.groups[group].len += ty.len().next_multiple_of(ALIGN / 4);
            layout.entries.push(Entry { name, ty, group, offset });
        }
        layout
    }

    /// Placements of parameters and gradients for the compiler.
    pub(crate) fn places(&self) -> HashMap<String, Placement> {
        let place = |flat: Flat, entry: &Entry| Placement { buffer: flat.buffer(entry.group), offset: entry.offset };
        let params = self.entries.iter().map(|entry| (entry.name.clone(), place(Flat::Param, entry)));
        let grads = self.entries.iter().map(|entry| (gradient_name(&entry.name), place(Flat::Grad, entry)));
        params.chain(grads).collect()
    }
}

fn rate_of(name: &str) -> Rate {
    if name.starts_with("model.multi_modal_projector.") { Rate::Projector } else { Rate::Main }
}

/// Biases and norms are exempt from weight decay.
fn decays(name: &str) -> bool {
    !(name.ends_with(".bias") || name.contains("norm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_grouped_and_aligned() {
        let ty = TensorType::f32([3, 5]);
        let names = ["model.multi_modal_projector.linear_1.bias", "model.language_model.layers.0.q_proj.lora_A.weight"];
        let more = ["model.language_model.layers.0.q_proj.lora_B.weight", "alignment_projector.projector.0.bias"];
        let layout = Layout::new(names.iter().chain(&more).map(|name| (name.to_string(), ty.clone())).collect());
        assert_eq!(layout.groups.len(), 3);
        assert!(layout.entries.iter().all(|entry| entry.offset % 256 == 0));
        let lora: Vec<u64> = layout.entries.iter().filter(|e| e.name.contains("lora")).map(|e| e.offset).collect();
        assert_eq!(lora, [0, 256]);
        let places = layout.places();
        assert_eq!(places["alignment_projector.projector.0.bias.grad"].buffer, Flat::Grad.buffer(0));
    }
}
