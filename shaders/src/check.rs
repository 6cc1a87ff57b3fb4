//! Tests a kernel without a device: is the module valid, does the record tell the truth about it, and can every backend
//! translate it? Meant for tests, here and in the crates that generate kernels (cargo feature `check`).

use std::panic::{AssertUnwindSafe, catch_unwind};

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, SubgroupOperationSet, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage, StorageAccess, TypeInner};

use crate::{Access, Kernel};

/// Parses and validates `kernel`, compares the record with the module (entry point, workgroup size, bindings, parameter
/// words, required features) and translates it to SPIR-V, MSL and HLSL.
///
/// A kernel with cooperative matrices is not translated to HLSL, which has none, and to MSL only where they have 8 rows and
/// columns, as all have there.
///
/// # Errors
/// Says which step failed for which kernel, with naga's message.
pub fn translate_everywhere(kernel: &Kernel) -> Result<(), String> {
    let in_kernel = |message: String| format!("kernel `{}`: {message}", kernel.name);
    let module = parse(kernel).map_err(in_kernel)?;
    compare_record(kernel, &module).map_err(in_kernel)?;
    to_spirv(kernel, &module).map_err(in_kernel)?;
    if matches!(kernel.requires.cooperative_matrix, None | Some(8)) {
        to_msl(kernel, &module).map_err(in_kernel)?;
    }
    if kernel.requires.cooperative_matrix.is_none() {
        to_hlsl(kernel, &module).map_err(in_kernel)?;
    }
    Ok(())
}

/// The kernel's module, parsed and validated with the capabilities that its record asks for.
///
/// # Errors
/// naga's message with the place in the text.
pub fn parse(kernel: &Kernel) -> Result<Module, String> {
    let module = naga::front::wgsl::parse_str(&kernel.wgsl).map_err(|error| error.emit_to_string(&kernel.wgsl))?;
    validate(kernel, &module, Capabilities::all())?;
    Ok(module)
}

/// Names of the fields of the parameter struct at binding 0, in order.
///
/// # Errors
/// If there is no such struct, or a field is not one 32-bit word.
pub fn param_fields(module: &Module) -> Result<Vec<String>, String> {
    let uniform = module.global_variables.iter().map(|(_, variable)| variable);
    let uniform = uniform.filter(|variable| variable.space == AddressSpace::Uniform).collect::<Vec<_>>();
    let [variable] = uniform[..] else {
        return Err(format!("expected one uniform buffer, found {}", uniform.len()));
    };
    let TypeInner::Struct { members, .. } = &module.types[variable.ty].inner else {
        return Err("the uniform buffer is no struct".to_string());
    };
    let mut fields = Vec::new();
    for member in members {
        let name = member.name.clone().unwrap_or_default();
        match module.types[member.ty].inner {
            TypeInner::Scalar(scalar) if scalar.width == 4 => fields.push(name),
            _ => return Err(format!("parameter `{name}` is not one 32-bit word")),
        }
    }
    Ok(fields)
}

/// What the record allows: the features it requires and the conversions that all WGSL has.
fn allowed(kernel: &Kernel) -> Capabilities {
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SUBGROUP, kernel.requires.subgroups);
    capabilities.set(Capabilities::SHADER_FLOAT16, kernel.requires.f16);
    capabilities.set(Capabilities::SHADER_INT64, kernel.requires.int64);
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, kernel.requires.cooperative_matrix.is_some());
    capabilities
}

fn validate(kernel: &Kernel, module: &Module, backend: Capabilities) -> Result<ModuleInfo, String> {
    let mut validator = Validator::new(ValidationFlags::all(), allowed(kernel) & backend);
    // Beside cooperative matrices a module may ask which subgroup it runs in, and no more.
    if kernel.requires.cooperative_matrix.is_some() {
        validator.subgroup_operations(SubgroupOperationSet::empty());
    }
    validator.validate(module).map_err(|error| error.emit_to_string(&kernel.wgsl))
}

fn compare_record(kernel: &Kernel, module: &Module) -> Result<(), String> {
    let [entry] = &module.entry_points[..] else {
        return Err(format!("expected one entry point, found {}", module.entry_points.len()));
    };
    if entry.name != "main" || entry.stage != ShaderStage::Compute {
        return Err(format!("expected compute entry point `main`, found {:?} `{}`", entry.stage, entry.name));
    }
    if entry.workgroup_size != kernel.workgroup {
        return Err(format!("workgroup size is {:?}, the record says {:?}", entry.workgroup_size, kernel.workgroup));
    }

    let fields = param_fields(module)?;
    if fields.len() != kernel.param_words as usize {
        return Err(format!("{} parameter words, the record says {}", fields.len(), kernel.param_words));
    }

    let mut found = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        let Some(binding) = variable.binding else { continue };
        if (binding.group, binding.binding) == (1, 0) && kernel.requires.counters {
            continue;
        }
        if binding.group != 0 {
            return Err(format!("binding in group {}", binding.group));
        }
        let access = match variable.space {
            AddressSpace::Uniform => None,
            AddressSpace::Storage { access } if access == StorageAccess::LOAD => Some(Access::Read),
            AddressSpace::Storage { access } if access == StorageAccess::LOAD | StorageAccess::STORE => {
                Some(Access::ReadWrite)
            }
            space => return Err(format!("binding {} lies in {space:?}", binding.binding)),
        };
        found.push((binding.binding, access));
    }
    found.sort_unstable_by_key(|(binding, _)| *binding);
    let storage = kernel.bindings.iter().zip(1..).map(|(access, binding)| (binding, Some(*access)));
    let expected = [(0, None)].into_iter().chain(storage).collect::<Vec<_>>();
    if found != expected {
        return Err(format!("bindings are {found:?}, the record says {expected:?}"));
    }
    Ok(())
}

fn to_spirv(kernel: &Kernel, module: &Module) -> Result<(), String> {
    let info = validate(kernel, module, spv::supported_capabilities()).map_err(|error| format!("SPIR-V: {error}"))?;
    let options = spv::Options {
        lang_version: (1, 3),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        ..Default::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".to_string() };
    let words = guarded("SPIR-V", || {
        spv::write_vec(module, &info, &options, Some(&pipeline)).map_err(|error| error.to_string())
    })?;
    if words.is_empty() { Err("SPIR-V: nothing was written".to_string()) } else { Ok(()) }
}

fn to_msl(kernel: &Kernel, module: &Module) -> Result<(), String> {
    let info = validate(kernel, module, msl::supported_capabilities()).map_err(|error| format!("MSL: {error}"))?;
    let options = msl::Options { lang_version: (3, 1), zero_initialize_workgroup_memory: false, ..Default::default() };
    let pipeline =
        msl::PipelineOptions { entry_point: Some((ShaderStage::Compute, "main".to_string())), ..Default::default() };
    guarded("MSL", || {
        let (_, info) = msl::write_string(module, &info, &options, &pipeline).map_err(|error| error.to_string())?;
        first_entry_point(info.entry_point_names)
    })
}

fn to_hlsl(kernel: &Kernel, module: &Module) -> Result<(), String> {
    let info = validate(kernel, module, hlsl::supported_capabilities()).map_err(|error| format!("HLSL: {error}"))?;
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_2,
        zero_initialize_workgroup_memory: false,
        ..Default::default()
    };
    let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, "main".to_string())) };
    guarded("HLSL", || {
        let mut text = String::new();
        let reflection = hlsl::Writer::new(&mut text, &options, &pipeline)
            .write(module, &info, None)
            .map_err(|error| error.to_string())?;
        first_entry_point(reflection.entry_point_names)
    })
}

/// A backend that cannot bind an entry point reports it here and still returns text.
fn first_entry_point<E: ToString>(names: Vec<Result<String, E>>) -> Result<(), String> {
    match names.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("no entry point was written".to_string()),
    }
}

/// naga's writers panic on some valid modules that their target cannot express.
fn guarded<T>(backend: &str, write: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(write)) {
        Ok(result) => result.map_err(|error| format!("{backend}: {error}")),
        Err(_) => Err(format!("{backend}: the writer panics")),
    }
}
