//! Spans of time as a file that Perfetto and Chrome's tracing page draw.
//!
//! Reference: "Trace Event Format", complete events (`"ph": "X"`); times are in microseconds.

use serde_json::{Value, json};

/// The line of the drawing that a span belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Track {
    /// What the thread of the training loop does.
    Host,
    /// What the device does.
    Device,
}

/// Collects spans.
#[derive(Debug, Default)]
pub(super) struct Trace {
    events: Vec<Value>,
}

impl Track {
    const ALL: [Track; 2] = [Track::Host, Track::Device];

    fn id(self) -> u32 {
        match self {
            Self::Host => 1,
            Self::Device => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Device => "device",
        }
    }
}

impl Trace {
    /// Adds a span of `seconds` that began `start` seconds after the trace did. `arguments` is an object that is shown with it.
    pub(super) fn span(&mut self, track: Track, name: &str, start: f64, seconds: f64, arguments: Value) {
        self.events.push(json!({
            "name": name,
            "cat": track.name(),
            "ph": "X",
            "ts": start * 1e6,
            "dur": seconds * 1e6,
            "pid": 1,
            "tid": track.id(),
            "args": arguments,
        }));
    }

    /// The file.
    pub(super) fn to_json(&self) -> Value {
        let names = Track::ALL.map(|track| {
            json!({"name": "thread_name", "ph": "M", "pid": 1, "tid": track.id(), "args": {"name": track.name()}})
        });
        let events: Vec<&Value> = names.iter().chain(&self.events).collect();
        json!({"displayTimeUnit": "ms", "traceEvents": events})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_complete_events_in_microseconds() {
        let mut trace = Trace::default();
        trace.span(Track::Device, "gemm_nt layers.0.mlp", 0.5, 0.001, json!({"flops": 7}));
        let json = trace.to_json();
        assert_eq!(json["traceEvents"].as_array().map(Vec::len), Some(3));
        let event = &json["traceEvents"][2];
        assert_eq!((event["ph"].as_str(), event["tid"].as_u64()), (Some("X"), Some(2)));
        assert_eq!((event["ts"].as_f64(), event["dur"].as_f64()), (Some(500_000.0), Some(1000.0)));
        assert_eq!(event["args"]["flops"], 7);
    }
}
