//! Work on its way through the device's queue.

use crate::{Device, Error};

/// A point in the device's queue that can be waited for.
#[derive(Clone, Debug)]
pub struct Submission {
    device: Device,
    index: wgpu::SubmissionIndex,
}

impl Submission {
    pub(crate) fn new(device: Device, index: wgpu::SubmissionIndex) -> Self {
        Self { device, index }
    }

    /// Waits until this work and everything submitted before it is done.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or the first fault of another kind.
    pub fn wait(&self) -> Result<(), Error> {
        self.device.poll(wgpu::PollType::Wait { submission_index: Some(self.index.clone()), timeout: None })
    }
}
