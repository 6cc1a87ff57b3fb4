//! Faults that the driver reports outside any call, kept until somebody asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;

/// The first fault of a device. A fault stays: after one, the content of the device's memory means nothing.
#[derive(Debug, Default)]
pub(crate) struct Health {
    faulty: AtomicBool,
    first: Mutex<Option<Error>>,
}

impl Health {
    /// Registers the callbacks that wgpu offers, so that neither a lost device nor an error outside a scope is missed. Without
    /// a handler the latter would panic, and calls on a lost device would succeed silently.
    pub(crate) fn watch(device: &wgpu::Device) -> Arc<Self> {
        let health = Arc::new(Self::default());
        let lost = Arc::clone(&health);
        device.set_device_lost_callback(move |reason, message| {
            let reason = match reason {
                wgpu::DeviceLostReason::Destroyed => "it was closed by this program".to_owned(),
                wgpu::DeviceLostReason::Unknown if message.is_empty() => "the driver gives no reason".to_owned(),
                wgpu::DeviceLostReason::Unknown => message,
            };
            lost.report(Error::DeviceLost { reason });
        });
        let uncaptured = Arc::clone(&health);
        device.on_uncaptured_error(Arc::new(move |error| uncaptured.report(from_wgpu(error, "a command", 0, 0))));
        health
    }

    /// Fails if a fault has been reported.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.faulty.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.first.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Remembers a fault, unless there is an earlier one.
    pub(crate) fn report(&self, error: Error) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.faulty.store(true, Ordering::Release);
    }
}

/// Runs `work` and returns what wgpu has to say about it. Scopes belong to the calling thread.
pub(crate) fn scoped<T>(device: &wgpu::Device, work: impl FnOnce() -> T) -> (T, Option<wgpu::Error>) {
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let result = work();
    let validation = crate::blocking::wait(validation.pop());
    let memory = crate::blocking::wait(memory.pop());
    let internal = crate::blocking::wait(internal.pop());
    (result, memory.or(internal).or(validation))
}

/// This crate's name for an error of wgpu that was caused by an allocation of `bytes` for `what`.
pub(crate) fn from_wgpu(error: wgpu::Error, what: &str, bytes: u64, in_use: u64) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { what: what.to_owned(), bytes, in_use },
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            Error::Refused { message: description }
        }
    }
}
