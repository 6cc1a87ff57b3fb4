//! Signals that ask a run to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, Kind, Result};

/// A wish to end the run, which the training loop looks at after every step.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    signal: Arc<AtomicUsize>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: somebody at the keyboard.
    Interrupt,
    /// SIGTERM: the system, or a scheduler.
    Terminate,
}

impl Signal {
    /// The kind of the error with which the program ends.
    pub fn kind(self) -> Kind {
        match self {
            Self::Interrupt => Kind::Interrupted,
            Self::Terminate => Kind::Terminated,
        }
    }
}

impl Interrupt {
    /// Listens to SIGINT and SIGTERM from now on. The first signal is noted; a second one ends the process at once, with the
    /// same exit code.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> Result<Self> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        use signal_hook::flag;
        let interrupt = Self::default();
        let second = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Order matters: on the first signal the shutdown finds the flag unset, and then it is set.
            let code = 128 + signal;
            let registered = flag::register_conditional_shutdown(signal, code, Arc::clone(&second))
                .and_then(|_| flag::register(signal, Arc::clone(&second)))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&interrupt.signal), signal as usize));
            registered.map_err(|error| Error::internal("cannot listen to signals", error.to_string()))?;
        }
        Ok(interrupt)
    }

    /// The signal that came first, if one has come.
    pub fn signal(&self) -> Option<Signal> {
        match self.signal.load(Ordering::Relaxed) as i32 {
            0 => None,
            signal_hook::consts::SIGINT => Some(Signal::Interrupt),
            _ => Some(Signal::Terminate),
        }
    }

    /// Ends the run after the step that is under way, as SIGINT would.
    pub fn stop(&self) {
        self.signal.store(signal_hook::consts::SIGINT as usize, Ordering::Relaxed);
    }
}
