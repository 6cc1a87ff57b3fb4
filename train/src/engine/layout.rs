//! Where trained tensors, their gradients and their moments lie on the device.
//!
//! Tensors that are updated alike (same learning rate, same decay) form a group. A group owns flat buffers of equal layout, so that the optimiser is one kernel over each group, however many tensors there are.

use std::collections::HashMap;

use viral_compiler::Placement;
use viral_compiler::types::{DType, TensorType};

use super::step_graph::gradient_name;
use crate::config::Moments;

/// Tensors start at multiples of this many elements: whole blocks of 8-bit moments, and of the 256 bytes that a device may
/// ask of a binding.
pub(crate) const BLOCK: usize = 256;

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
    /// First byte in the group's parameters and gradients.
    pub(crate) offset: u64,
}

/// The whole trainable memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) groups: Vec<Group>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) moments: Moments,
}

/// The buffers of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flat {
    Param,
    Grad,
    FirstMoment,
    SecondMoment,
    /// What the codes of a block of 8-bit moments are multiplied by.
    FirstScale,
    SecondScale,
}

impl Flat {
    /// A group's buffers, with moments of one kind.
    pub(crate) fn all(moments: Moments) -> &'static [Flat] {
        const ALL: [Flat; 6] =
            [Flat::Param, Flat::Grad, Flat::FirstMoment, Flat::SecondMoment, Flat::FirstScale, Flat::SecondScale];
        match moments {
            Moments::F32 => &ALL[..4],
            Moments::F8 => &ALL,
        }
    }

    /// Type of the elements, with moments of one kind.
    pub(crate) fn dtype(self, moments: Moments) -> DType {
        match (moments, self) {
            (Moments::F8, Flat::FirstMoment) => DType::F8S,
            (Moments::F8, Flat::SecondMoment) => DType::F8U,
            _ => DType::F32,
        }
    }

    /// What holds the scales of 8-bit moments.
    pub(crate) fn scales(self) -> Option<Flat> {
        match self {
            Flat::FirstMoment => Some(Flat::FirstScale),
            Flat::SecondMoment => Some(Flat::SecondScale),
            Flat::Param | Flat::Grad | Flat::FirstScale | Flat::SecondScale => None,
        }
    }

    /// Elements in the buffer for `len` trained elements.
    fn elements(self, len: usize) -> usize {
        match self {
            Flat::Param | Flat::Grad | Flat::FirstMoment | Flat::SecondMoment => len,
            Flat::FirstScale | Flat::SecondScale => len.div_ceil(BLOCK),
        }
    }

    /// What the buffer holds.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Flat::Param => "params",
            Flat::Grad => "grads",
            Flat::FirstMoment => "first_moments",
            Flat::SecondMoment => "second_moments",
            Flat::FirstScale => "first_moments.scales",
            Flat::SecondScale => "second_moments.scales",
        }
    }

    /// Name of the buffer of a group.
    pub(crate) fn buffer(self, group: usize) -> String {
        format!("{}.{group}", self.name())
    }
}

impl Layout {
    /// Lays out trained tensors, given by name and type, in groups of at most `limit` bytes a buffer, what a device binds at
    /// once. A tensor that is larger by itself has a group of its own, which compilation refuses by name.
    pub(crate) fn new(mut params: Vec<(String, TensorType)>, limit: u64, moments: Moments) -> Self {
        params.sort_by(|a, b| a.0.cmp(&b.0));
        let mut layout = Self { groups: Vec::new(), entries: Vec::new(), moments };
        for (name, ty) in params {
            let (rate, decays) = (rate_of(&name), decays(&name));
            let len = ty.len().next_multiple_of(BLOCK);
            let known = layout.groups.iter().position(|group| {
                (group.rate, group.decays) == (rate, decays) && 4 * (group.len + len) as u64 <= limit
            });
            let group = known.unwrap_or_else(|| {
                layout.groups.push(Group { rate, decays, len: 0 });
                layout.groups.len() - 1
            });
            let offset = layout.groups[group].len as u64 * 4;
            layout.groups[group].len += len;
            layout.entries.push(Entry { name, ty, group, offset });
        }
        layout
    }

    /// Bytes of a group's buffer.
    pub(crate) fn bytes(&self, flat: Flat, group: usize) -> u64 {
        flat.dtype(self.moments).element_bytes(flat.elements(self.groups[group].len))
    }

    /// Bytes of all buffers.
    pub(crate) fn total_bytes(&self) -> u64 {
        let flats = || Flat::all(self.moments).iter();
        (0..self.groups.len()).flat_map(|group| flats().map(move |&flat| self.bytes(flat, group))).sum()
    }

    /// The bytes of a tensor in a buffer of its group.
    pub(crate) fn range(&self, flat: Flat, entry: &Entry) -> std::ops::Range<u64> {
        let first = flat.elements((entry.offset / 4) as usize);
        let dtype = flat.dtype(self.moments);
        let start = dtype.element_bytes(first);
        start..start + dtype.element_bytes(flat.elements(entry.ty.len()))
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
        let params = || names.iter().chain(&more).map(|name| (name.to_string(), ty.clone())).collect();
        let layout = Layout::new(params(), 1 << 20, Moments::F32);
        assert_eq!(layout.groups.len(), 3);
        assert!(layout.entries.iter().all(|entry| entry.offset % 256 == 0));
        let lora: Vec<u64> = layout.entries.iter().filter(|e| e.name.contains("lora")).map(|e| e.offset).collect();
        assert_eq!(lora, [0, 1024]);
        let places = layout.places();
        assert_eq!(places["alignment_projector.projector.0.bias.grad"].buffer, Flat::Grad.buffer(0));

        // Two tensors of 1024 bytes each do not fit one buffer then.
        let narrow = Layout::new(params(), 2000, Moments::F8);
        assert_eq!(narrow.groups.len(), 4);
        assert!(narrow.entries.iter().all(|entry| entry.offset == 0));
        // Parameter and gradient, two moments of a byte, two scales of a block.
        assert_eq!(narrow.total_bytes(), 4 * (2 * 1024 + 2 * 256 + 2 * 4));
        assert_eq!(layout.range(Flat::SecondMoment, &layout.entries[2]).start, layout.entries[2].offset);
    }
}
