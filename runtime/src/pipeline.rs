//! Compiled kernels, one per distinct text, shared by all executables of a device.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use viral_shaders::{Access, COUNTERS_BYTES, DeviceClass, Kernel};

use crate::buffer::Allocation;
use crate::health::scoped;
use crate::{Device, DeviceOptions, Error, trusted};

mod ahead;
mod disk;

/// A compiled kernel.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) raw: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
    /// Group 1, where the kernel has one.
    pub(crate) counters: Option<wgpu::BindGroup>,
}

/// A device's compiled kernels.
pub(crate) struct Pipelines {
    compiled: Mutex<HashMap<Key, Arc<Pipeline>>>,
    disk: Option<disk::Cache>,
}

/// What makes two kernels the same pipeline: the text, and the interface that the bind group layout is made from.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    wgsl: String,
    bindings: Vec<Access>,
    param_words: u32,
}

impl Pipelines {
    pub(crate) fn new(
        device: &wgpu::Device,
        info: &wgpu::AdapterInfo,
        features: wgpu::Features,
        options: &DeviceOptions,
    ) -> Self {
        let folder = options.pipeline_cache.as_deref().filter(|_| features.contains(wgpu::Features::PIPELINE_CACHE));
        Self { compiled: Mutex::default(), disk: folder.and_then(|folder| disk::Cache::open(device, info, folder)) }
    }

    /// The file of kept pipelines, if it is there and what it holds could not be used.
    pub(crate) fn damaged(&self) -> Option<&Path> {
        self.disk.as_ref()?.damaged()
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// The pipelines of `kernels`, in their order. Those not seen before are compiled now, on all cores.
    pub(crate) fn get(&self, device: &Device, kernels: &[impl Borrow<Kernel>]) -> Result<Vec<Arc<Pipeline>>, Error> {
        let kernels: Vec<&Kernel> = kernels.iter().map(Borrow::borrow).collect();
        for kernel in &kernels {
            device.check_requirements(kernel)?;
        }
        let missing = self.missing(&kernels);
        if !missing.is_empty() {
            let compiled = self.compile_all(device, &missing)?;
            let mut known = self.lock();
            for (kernel, pipeline) in missing.into_iter().zip(compiled) {
                known.entry(Key::of(kernel)).or_insert(pipeline);
            }
            drop(known);
            if let Some(disk) = &self.disk {
                disk.save();
            }
        }
        let known = self.lock();
        let found = kernels.iter().filter_map(|kernel| known.get(&Key::of(kernel)).cloned());
        Ok(found.collect())
    }

    /// As [`Pipelines::get`], and on software devices machine code of them all, which these would make at the first launch.
    pub(crate) fn prepare(&self, device: &Device, kernels: &[&Kernel]) -> Result<(), Error> {
        let missing = self.missing(kernels);
        self.get(device, &missing)?;
        if device.target().class == DeviceClass::Cpu {
            ahead::translate(device, &missing);
        }
        // Compiling leaves much behind: 30 MB for a training step on Mesa's software device.
        trusted::return_freed_memory();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Pipeline>>> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Distinct kernels that are not compiled yet, in order of first appearance.
    fn missing<'a>(&self, kernels: &[&'a Kernel]) -> Vec<&'a Kernel> {
        let known = self.lock();
        let mut seen = std::collections::HashSet::new();
        kernels
            .iter()
            .copied()
            .filter(|kernel| {
                let key = Key::of(kernel);
                !known.contains_key(&key) && seen.insert(key)
            })
            .collect()
    }

    fn compile_all(&self, device: &Device, kernels: &[&Kernel]) -> Result<Vec<Arc<Pipeline>>, Error> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(kernels.len());
        let results: Vec<_> = kernels.iter().map(|_| Mutex::new(None)).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            // Each worker takes the next kernel in line; drivers take very different times for different kernels.
            while let Some((kernel, result)) = {
                let i = next.fetch_add(1, Ordering::Relaxed);
                kernels.get(i).zip(results.get(i))
            } {
                let compiled = self.compile(device, kernel);
                *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(compiled);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        // A driver that fails to build a pipeline may take the device with it.
        let results =
            results.into_iter().filter_map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner));
        let results = results.collect::<Result<_, _>>()?;
        device.check()?;
        Ok(results)
    }

    fn compile(&self, device: &Device, kernel: &Kernel) -> Result<Arc<Pipeline>, Error> {
        device.check()?;
        let raw = device.raw();
        let label = Some(kernel.name.as_str());
        let counters = kernel.requires.counters.then(|| device.counters()).transpose()?;
        let (pipeline, error) = scoped(raw, || {
            let module = trusted::shader_module(
                raw,
                wgpu::ShaderModuleDescriptor { label, source: wgpu::ShaderSource::Wgsl(kernel.wgsl.as_str().into()) },
                device.checks(),
            );
            let layout = raw
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &layout_entries(kernel) });
            let pipeline_layout = raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label,
                bind_group_layouts: &[Some(&layout), counters.map(|counters| &counters.layout)],
                immediate_size: 0,
            });
            let raw = raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Where the driver cannot do it, one thread would clear all of it; kernels write before they read.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: self.disk.as_ref().map(disk::Cache::raw),
            });
            Pipeline { raw, layout, counters: counters.map(|counters| counters.bind_group.clone()) }
        });
        match error {
            None => Ok(Arc::new(pipeline)),
            Some(error) => Err(Error::ShaderRejected { kernel: kernel.name.clone(), message: error.to_string() }),
        }
    }
}

impl Key {
    fn of(kernel: &Kernel) -> Self {
        Self { wgsl: kernel.wgsl.clone(), bindings: kernel.bindings.clone(), param_words: kernel.param_words }
    }
}

/// The counters by which the workgroups of a launch divide its tiles, shared by all launches of a device.
#[derive(Debug)]
pub(crate) struct Counters {
    layout: wgpu::BindGroupLayout,
    bind_group: wgpu::BindGroup,
    /// Kept alive for the bind group.
    _buffer: Allocation,
}

impl Counters {
    pub(crate) fn new(device: &Device) -> Result<Self, Error> {
        let label = Some("counters");
        let buffer = device.allocate("counters", COUNTERS_BYTES, wgpu::BufferUsages::STORAGE, false)?;
        let layout = device.raw().create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label,
            entries: &[storage_entry(0, false, NonZeroU64::new(COUNTERS_BYTES))],
        });
        let bind_group = device.raw().create_bind_group(&wgpu::BindGroupDescriptor {
            label,
            layout: &layout,
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: buffer.raw().as_entire_binding() }],
        });
        Ok(Self { layout, bind_group, _buffer: buffer })
    }
}

/// Bytes of a kernel's parameter struct, as bound: some backends want uniform bindings in units of 16 bytes.
pub(crate) fn param_bytes(kernel: &Kernel) -> u64 {
    (u64::from(kernel.param_words) * 4).next_multiple_of(16)
}

fn layout_entries(kernel: &Kernel) -> Vec<wgpu::BindGroupLayoutEntry> {
    let params = NonZeroU64::new(param_bytes(kernel));
    let params = params.map(|bytes| entry(0, wgpu::BufferBindingType::Uniform, Some(bytes)));
    let storage = kernel.bindings.iter().zip(1..);
    let storage = storage.map(|(access, binding)| storage_entry(binding, *access == Access::Read, None));
    params.into_iter().chain(storage).collect()
}

fn storage_entry(binding: u32, read_only: bool, bytes: Option<NonZeroU64>) -> wgpu::BindGroupLayoutEntry {
    entry(binding, wgpu::BufferBindingType::Storage { read_only }, bytes)
}

fn entry(binding: u32, ty: wgpu::BufferBindingType, bytes: Option<NonZeroU64>) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: bytes },
        count: None,
    }
}
