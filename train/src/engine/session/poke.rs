//! Bad numbers in a session's memory, for tests.

use super::Session;
use crate::engine::layout::Flat;

/// Takes a bad number away again.
type Restore = Box<dyn FnOnce(&mut Session)>;

impl Session {
    /// Overwrites an element of the first frozen tensor whose name contains `part`.
    pub(in crate::engine) fn poke(&mut self, part: &str, element: usize, bad: f32) -> Restore {
        let mut names: Vec<&String> = self.buffers.keys().filter(|name| name.contains(part)).collect();
        names.sort();
        let name = (*names.first().expect("a tensor of this name")).clone();
        self.overwrite(name, element as u64 * 4, bad)
    }

    /// Overwrites the first element of a trained tensor, or of its moment.
    pub(in crate::engine) fn poke_state(&mut self, flat: Flat, part: &str, bad: f32) -> Restore {
        let entry = self.layout.entries.iter().find(|entry| entry.name.contains(part)).expect("a tensor of this name");
        let (buffer, offset) = (flat.buffer(entry.group), entry.offset);
        self.overwrite(buffer, offset, bad)
    }

    /// Overwrites a gradient; the next update clears it.
    pub(in crate::engine) fn inject_gradient(&mut self, bad: f32) {
        self.stream.wait().unwrap();
        drop(self.poke_state(Flat::Grad, "lora_B", bad));
    }

    /// The bits of trained tensors and moments.
    pub(in crate::engine) fn fingerprint(&self) -> Vec<Vec<u8>> {
        let flats = [Flat::Param, Flat::FirstMoment, Flat::SecondMoment];
        let names = flats.iter().flat_map(|flat| (0..self.layout.groups.len()).map(|group| flat.buffer(group)));
        names.map(|name| self.device.read(&self.buffers[&name], 0..self.buffers[&name].bytes()).unwrap()).collect()
    }

    fn overwrite(&mut self, name: String, offset: u64, bad: f32) -> Restore {
        let buffer = self.buffers[&name].clone();
        let old: Vec<u8> = self.device.read(&buffer, offset..offset + 4).unwrap();
        self.device.write(&buffer, offset, &bad.to_le_bytes()).unwrap();
        Box::new(move |session| session.device.write(&buffer, offset, &old).unwrap())
    }
}
