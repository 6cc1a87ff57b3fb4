//! How long each dispatch of a plan takes on the device.

use std::sync::PoisonError;

use crate::buffer::Allocation;
use crate::executable::{BoundDispatch, Step};
use crate::transfer::{Mapping, read_mapped};
use crate::{Device, Error, Executable};

/// Dispatches timed by one submission; wgpu allows 4096 queries in a set.
const WINDOW: usize = 2048;

/// The time that one dispatch took.
#[derive(Clone, Debug, PartialEq)]
pub struct DispatchTime {
    /// The model's name for what is computed.
    pub label: String,
    /// The kernel's name.
    pub kernel: String,
    /// When it began, in nanoseconds since the first dispatch of the replay began.
    pub start: f64,
    /// Time on the device in nanoseconds.
    pub nanoseconds: f64,
    /// Floating-point operations.
    pub flops: u64,
    /// Whether they are those of cooperative matrices.
    pub on_matrices: bool,
    /// Bytes read and written when every operand is touched once.
    pub traffic: u64,
}

/// What the host does while a replay is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Recording commands.
    Encode,
    /// Handing them to the device.
    Submit,
    /// Waiting for the device, and reading its clock.
    Wait,
    /// Done, with this part or with all.
    End,
}

/// Query set and buffers, made once per device.
pub(crate) struct Profiler {
    queries: wgpu::QuerySet,
    resolved: Allocation,
    staging: Allocation,
}

impl Executable {
    /// Replays the plan once with a clock reading around every dispatch, waits, and returns one row per dispatch, in order.
    ///
    /// The replay has its usual effect on the buffers. It takes longer than [`Executable::run`], since it is cut into more
    /// submissions and waits after each. `phase` is told what the host begins to do, so that a caller with a clock can say
    /// how long that takes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on a device without time stamps, [`Error::OutOfMemory`] (first use only), [`Error::DeviceLost`].
    pub fn run_profiled(&self, phase: &mut dyn FnMut(Phase)) -> Result<Vec<DispatchTime>, Error> {
        let device = self.device();
        let mut profiler = device.profiler().lock().unwrap_or_else(PoisonError::into_inner);
        let profiler = match &mut *profiler {
            Some(profiler) => profiler,
            none => none.insert(Profiler::new(device)?),
        };
        let (mut times, mut clock) = (Vec::new(), None);
        let mut rest = self.steps();
        while !rest.is_empty() {
            let mut dispatches = 0;
            let end = rest.iter().position(|step| {
                dispatches += usize::from(matches!(step, Step::Dispatch(_)));
                dispatches > WINDOW
            });
            let (window, after) = rest.split_at(end.unwrap_or(rest.len()));
            profiler.run(device, window, &mut clock, phase, &mut times)?;
            rest = after;
        }
        Ok(times)
    }
}

impl Profiler {
    fn new(device: &Device) -> Result<Self, Error> {
        if !device.adapter().timestamps {
            return Err(Error::Unsupported { adapter: device.adapter().name.clone(), what: "time stamps" });
        }
        let queries = device.raw().create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("dispatch times"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * WINDOW as u32,
        });
        let bytes = 2 * WINDOW as u64 * 8;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = device.allocate("dispatch times", bytes, usage, false)?;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = device.allocate("dispatch times staging", bytes, usage, false)?;
        Ok(Self { queries, resolved, staging })
    }

    /// Runs at most [`WINDOW`] dispatches and appends their times.
    /// `clock` is the reading at the start of the replay's first dispatch, once there is one.
    fn run(
        &self,
        device: &Device,
        steps: &[Step],
        clock: &mut Option<u64>,
        phase: &mut dyn FnMut(Phase),
        times: &mut Vec<DispatchTime>,
    ) -> Result<(), Error> {
        phase(Phase::Encode);
        let mut encoder = device.raw().create_command_encoder(&Default::default());
        let mut timed: Vec<&BoundDispatch> = Vec::new();
        for step in steps {
            match step {
                Step::Clear { buffer, offset, bytes } => encoder.clear_buffer(buffer.raw(), *offset, Some(*bytes)),
                Step::Dispatch(dispatch) => {
                    let first = 2 * timed.len() as u32;
                    let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                        query_set: &self.queries,
                        beginning_of_pass_write_index: Some(first),
                        end_of_pass_write_index: Some(first + 1),
                    });
                    // A pass of its own: the only place where every backend with a clock can read it.
                    let label = Some(dispatch.label.as_str());
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label, timestamp_writes });
                    dispatch.encode(&mut pass);
                    timed.push(dispatch);
                }
            }
        }
        let count = 2 * timed.len() as u32;
        let bytes = u64::from(count) * 8;
        if count > 0 {
            encoder.resolve_query_set(&self.queries, 0..count, self.resolved.raw(), 0);
            encoder.copy_buffer_to_buffer(self.resolved.raw(), 0, self.staging.raw(), 0, bytes);
        }
        let commands = encoder.finish();
        phase(Phase::Submit);
        let submission = device.submit(Some(commands))?;
        phase(Phase::Wait);
        if count == 0 {
            submission.wait()?;
            phase(Phase::End);
            return Ok(());
        }
        let mapping = Mapping::request(self.staging.raw(), wgpu::MapMode::Read, 0..bytes);
        submission.wait()?;
        mapping.finish(device)?;
        let mut content = Vec::with_capacity(bytes as usize);
        read_mapped(self.staging.raw(), 0..bytes, &mut content)?;
        self.staging.raw().unmap();

        let period = f64::from(device.queue().get_timestamp_period());
        let ticks: Vec<u64> = content.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect();
        for (dispatch, ticks) in timed.into_iter().zip(ticks.chunks_exact(2)) {
            let origin = *clock.get_or_insert(ticks[0]);
            times.push(DispatchTime {
                label: dispatch.label.clone(),
                kernel: dispatch.kernel.clone(),
                start: ticks[0].saturating_sub(origin) as f64 * period,
                // Clocks of some drivers step back between passes; a dispatch never takes less than no time.
                nanoseconds: ticks[1].saturating_sub(ticks[0]) as f64 * period,
                flops: dispatch.flops,
                on_matrices: dispatch.on_matrices,
                traffic: dispatch.traffic,
            });
        }
        phase(Phase::End);
        Ok(())
    }
}
