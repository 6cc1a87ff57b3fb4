//! A plan bound to a device: pipelines compiled, buffers allocated, one bind group per dispatch, ready to be replayed.

use std::ops::Range;
use std::sync::Arc;

use viral_compiler::plan::{Bind, BufferRole, Command, Dispatch, Plan, Port};
use viral_compiler::types::TensorType;
use viral_shaders::Access;

use crate::batch::{self, Rates};
use crate::buffer::Allocation;
use crate::health::scoped;
use crate::pipeline::{Pipeline, param_bytes};
use crate::{Buffer, Device, Error, SlotPool, Submission, check};

/// A plan bound to a device. It holds on to every buffer it uses.
#[derive(Debug)]
pub struct Executable {
    device: Device,
    steps: Vec<Step>,
    batches: Vec<Range<usize>>,
    inputs: Vec<BoundPort>,
    state: Vec<BoundPort>,
    outputs: Vec<BoundPort>,
    buffers: Vec<Buffer>,
    /// Kept alive for the bind groups, which the books on memory do not see.
    _params: Option<Allocation>,
}

/// A tensor of a plan, and where it lives on the device.
#[derive(Clone, Debug)]
pub struct BoundPort {
    /// Name given by the graph.
    pub name: String,
    /// Element type and shape.
    pub ty: TensorType,
    /// The buffer that holds it.
    pub buffer: Buffer,
    /// Its first byte there.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A command of the plan with its device objects.
#[derive(Debug)]
pub(crate) enum Step {
    Dispatch(BoundDispatch),
    Clear { buffer: Buffer, offset: u64, bytes: u64 },
}

#[derive(Debug)]
pub(crate) struct BoundDispatch {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) bind_group: wgpu::BindGroup,
    pub(crate) groups: [u32; 3],
    pub(crate) label: String,
    pub(crate) kernel: String,
    pub(crate) flops: u64,
    pub(crate) on_matrices: bool,
    pub(crate) traffic: u64,
}

impl Executable {
    /// Binds `plan` to `device`: compiles the kernels it does not know yet, takes slots from `slots`, and asks `external` for
    /// every other buffer by its name. A buffer given may be larger than declared.
    ///
    /// # Errors
    /// [`Error::MissingBuffer`], [`Error::BufferTooSmall`], [`Error::MissingFeature`], [`Error::ShaderRejected`],
    /// [`Error::InvalidPlan`] (the plan contradicts itself, the device's limits, or the rule that no dispatch reads and writes
    /// one buffer), [`Error::OutOfMemory`], [`Error::BufferTooLarge`], [`Error::DeviceLost`].
    pub fn new(
        device: &Device,
        plan: &Plan,
        external: &dyn Fn(&str) -> Option<Buffer>,
        slots: &mut SlotPool,
    ) -> Result<Self, Error> {
        check::plan(device.target(), plan)?;
        let pipelines = device.pipelines().get(device, &plan.kernels)?;
        let buffers = bind_buffers(device, plan, external, slots)?;
        let params = upload_params(device, plan)?;
        let mut steps = Vec::with_capacity(plan.commands.len());
        for command in &plan.commands {
            steps.push(match command {
                Command::Dispatch(dispatch) => {
                    let bound = bind_dispatch(device, plan, dispatch, &pipelines, &buffers, params.as_ref())?;
                    Step::Dispatch(bound)
                }
                Command::Clear(bind) => Step::Clear {
                    buffer: buffer_of(&buffers, bind, "clear")?.clone(),
                    offset: bind.offset,
                    bytes: bind.bytes,
                },
            });
        }
        let batches = batch::split(Rates::of(device.adapter().kind), steps.iter().map(Step::work));
        let bind_ports = |ports: &[Port]| ports.iter().map(|port| bind_port(port, &buffers)).collect::<Result<_, _>>();
        Ok(Self {
            device: device.clone(),
            steps,
            batches,
            inputs: bind_ports(&plan.inputs)?,
            state: bind_ports(&plan.state)?,
            outputs: bind_ports(&plan.outputs)?,
            buffers,
            _params: params,
        })
    }

    /// Replays the plan once and returns without waiting.
    ///
    /// Whoever replays many times without waiting queues commands without bound; [`Stream::run`](crate::Stream::run) does not,
    /// and moves inputs and results.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or the first fault of another kind.
    pub fn run(&self) -> Result<Submission, Error> {
        self.run_after(None)
    }

    /// The tensor that the caller writes before a replay.
    pub fn input(&self, name: &str) -> Option<&BoundPort> {
        self.inputs.iter().find(|port| port.name == name)
    }

    /// The tensor that persists between replays.
    pub fn state(&self, name: &str) -> Option<&BoundPort> {
        self.state.iter().find(|port| port.name == name)
    }

    /// The tensor that the caller may read after a replay.
    pub fn output(&self, name: &str) -> Option<&BoundPort> {
        self.outputs.iter().find(|port| port.name == name)
    }

    /// The buffers of the plan, in the order of [`Plan::buffers`].
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// Into how many submissions one replay is cut.
    pub fn submissions(&self) -> usize {
        self.batches.len()
    }

    /// Floating-point operations, and bytes read and written when every operand of a launch is touched once, of one replay.
    pub fn work(&self) -> (u64, u64) {
        self.steps.iter().map(Step::work).fold((0, 0), |(flops, bytes), work| (flops + work.0, bytes + work.1))
    }

    /// The device it was bound to.
    pub fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Replays the plan; what `encoder` already holds comes first, in the same submission as the plan's first commands.
    pub(crate) fn run_after(&self, mut encoder: Option<wgpu::CommandEncoder>) -> Result<Submission, Error> {
        let mut last = None;
        for batch in &self.batches {
            let mut encoder = encoder.take().unwrap_or_else(|| self.new_encoder());
            encode(&self.steps[batch.clone()], &mut encoder);
            last = Some(self.device.submit(Some(encoder.finish()))?);
        }
        match last {
            Some(submission) => Ok(submission),
            None => self.device.submit(encoder.map(wgpu::CommandEncoder::finish)),
        }
    }

    fn new_encoder(&self) -> wgpu::CommandEncoder {
        self.device.raw().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("step") })
    }
}

impl Step {
    /// Floating-point operations and bytes.
    fn work(&self) -> (u64, u64) {
        match self {
            Step::Dispatch(dispatch) => (dispatch.flops, dispatch.traffic),
            Step::Clear { bytes, .. } => (0, *bytes),
        }
    }
}

impl BoundDispatch {
    pub(crate) fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline.raw);
        pass.set_bind_group(0, &self.bind_group, &[]);
        if let Some(counters) = &self.pipeline.counters {
            pass.set_bind_group(1, counters, &[]);
        }
        pass.dispatch_workgroups(self.groups[0], self.groups[1], self.groups[2]);
    }
}

/// Records `steps`; dispatches between two clears share one pass.
fn encode(steps: &[Step], encoder: &mut wgpu::CommandEncoder) {
    let same_pass = |a: &Step, b: &Step| matches!((a, b), (Step::Dispatch(_), Step::Dispatch(_)));
    for run in steps.chunk_by(same_pass) {
        if let [Step::Clear { buffer, offset, bytes }] = run {
            encoder.clear_buffer(buffer.raw(), *offset, Some(*bytes));
            continue;
        }
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for step in run {
            if let Step::Dispatch(dispatch) = step {
                dispatch.encode(&mut pass);
            }
        }
    }
}

/// The buffer of every declaration, in order.
fn bind_buffers(
    device: &Device,
    plan: &Plan,
    external: &dyn Fn(&str) -> Option<Buffer>,
    slots: &mut SlotPool,
) -> Result<Vec<Buffer>, Error> {
    let mut slots = slots.allocate(device, plan)?.into_iter().collect::<std::collections::HashMap<_, _>>();
    let mut buffers = Vec::with_capacity(plan.buffers.len());
    for (index, declared) in plan.buffers.iter().enumerate() {
        let (name, buffer) = match &declared.role {
            BufferRole::Slot => (format!("slot {index}"), slots.remove(&index)),
            BufferRole::External(name) => (name.clone(), external(name)),
        };
        let buffer = buffer.ok_or_else(|| Error::MissingBuffer { name: name.clone() })?;
        if buffer.bytes() < declared.bytes {
            return Err(Error::BufferTooSmall { name, needed: declared.bytes, given: buffer.bytes() });
        }
        buffers.push(buffer);
    }
    Ok(buffers)
}

/// One uniform buffer with the parameters of all dispatches.
fn upload_params(device: &Device, plan: &Plan) -> Result<Option<Allocation>, Error> {
    if plan.params.is_empty() {
        return Ok(None);
    }
    // A binding covers whole units of 16 bytes, so the last one may reach beyond the plan's words.
    let mut content = plan.params.clone();
    content.resize(content.len().next_multiple_of(16), 0);
    let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    let params = device.allocate("kernel parameters", content.len() as u64, usage, false)?;
    device.queue().write_buffer(params.raw(), 0, &content);
    Ok(Some(params))
}

fn bind_dispatch(
    device: &Device,
    plan: &Plan,
    dispatch: &Dispatch,
    pipelines: &[Arc<Pipeline>],
    buffers: &[Buffer],
    params: Option<&Allocation>,
) -> Result<BoundDispatch, Error> {
    let at = dispatch.label.as_str();
    let invalid = |why: String| Error::InvalidPlan { at: at.to_owned(), why };
    let kernel = dispatch.kernel.0 as usize;
    let (kernel, pipeline) = plan
        .kernels
        .get(kernel)
        .zip(pipelines.get(kernel))
        .ok_or_else(|| invalid(format!("there is no kernel {kernel}")))?;
    let bound = dispatch.binds.iter().map(|bind| buffer_of(buffers, bind, at)).collect::<Result<Vec<_>, _>>()?;

    // WebGPU tracks whole buffers: one that a dispatch reads through one binding and writes through another is an error.
    let writes = |access: &Access| *access == Access::ReadWrite;
    for (i, (a, a_access)) in bound.iter().zip(&kernel.bindings).enumerate() {
        for (b, b_access) in bound.iter().zip(&kernel.bindings).skip(i + 1) {
            if a.raw() == b.raw() && writes(a_access) != writes(b_access) {
                return Err(invalid(format!("kernel `{}` reads and writes buffer `{}`", kernel.name, a.label())));
            }
        }
    }

    let params = params.filter(|_| kernel.param_words > 0).map(|params| wgpu::BufferBinding {
        buffer: params.raw(),
        offset: dispatch.params_offset.into(),
        size: std::num::NonZeroU64::new(param_bytes(kernel)),
    });
    let storage = bound.iter().zip(&dispatch.binds).map(|(buffer, bind)| wgpu::BufferBinding {
        buffer: buffer.raw(),
        offset: bind.offset,
        size: std::num::NonZeroU64::new(bind.bytes),
    });
    let params = params.into_iter().map(|binding| (0, binding));
    let entries: Vec<_> = params
        .chain((1..).zip(storage))
        .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(buffer) })
        .collect();
    let (bind_group, error) = scoped(device.raw(), || {
        device.raw().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(at),
            layout: &pipeline.layout,
            entries: &entries,
        })
    });
    if let Some(error) = error {
        return Err(invalid(error.to_string()));
    }
    Ok(BoundDispatch {
        pipeline: Arc::clone(pipeline),
        bind_group,
        groups: dispatch.groups,
        label: dispatch.label.clone(),
        kernel: kernel.name.clone(),
        flops: dispatch.flops,
        on_matrices: kernel.requires.cooperative_matrix.is_some(),
        traffic: dispatch.traffic,
    })
}

fn bind_port(port: &Port, buffers: &[Buffer]) -> Result<BoundPort, Error> {
    let buffer = buffer_of(buffers, &port.bind, &port.name)?.clone();
    buffer.check_words(port.bind.offset, port.bind.bytes)?;
    Ok(BoundPort {
        name: port.name.clone(),
        ty: port.ty.clone(),
        buffer,
        offset: port.bind.offset,
        bytes: port.bind.bytes,
    })
}

fn buffer_of<'a>(buffers: &'a [Buffer], bind: &Bind, at: &str) -> Result<&'a Buffer, Error> {
    let missing = || Error::InvalidPlan { at: at.to_owned(), why: format!("there is no buffer {}", bind.buffer.0) };
    buffers.get(bind.buffer.0 as usize).ok_or_else(missing)
}
