//! Whether a plan fits a device, as far as that can be said before anything is allocated.

use viral_compiler::plan::{Bind, Command, Dispatch, Plan};
use viral_shaders::{Kernel, Target};

use crate::Error;

/// Checks every index, range, alignment and limit of `plan`.
///
/// # Errors
/// [`Error::InvalidPlan`] with the label of the first dispatch that is wrong.
pub(crate) fn plan(target: &Target, plan: &Plan) -> Result<(), Error> {
    for command in &plan.commands {
        let (at, checked) = match command {
            Command::Dispatch(dispatch) => (dispatch.label.as_str(), check_dispatch(target, plan, dispatch)),
            Command::Clear(bind) => ("clear", check_bind(plan, bind, 4)),
        };
        checked.map_err(|why| Error::InvalidPlan { at: at.to_owned(), why })?;
    }
    Ok(())
}

fn check_dispatch(target: &Target, plan: &Plan, dispatch: &Dispatch) -> Result<(), String> {
    let kernel = dispatch.kernel.0;
    let kernel = plan.kernels.get(kernel as usize).ok_or_else(|| format!("there is no kernel {kernel}"))?;
    let (name, bindings) = (&kernel.name, kernel.bindings.len());
    if dispatch.binds.len() != bindings {
        return Err(format!("kernel `{name}` has {bindings} bindings, {} are given", dispatch.binds.len()));
    }
    if bindings > target.max_storage_buffers as usize {
        return Err(format!(
            "kernel `{name}` binds {bindings} buffers, the device allows {}",
            target.max_storage_buffers
        ));
    }
    for bind in &dispatch.binds {
        check_bind(plan, bind, target.storage_align)?;
        if bind.bytes > target.max_binding_bytes {
            return Err(format!("a binding of {} bytes, the device allows {}", bind.bytes, target.max_binding_bytes));
        }
    }
    let max_groups = target.max_workgroups_per_dimension;
    if let Some(groups) = dispatch.groups.iter().find(|&&groups| groups > max_groups) {
        return Err(format!("{groups} workgroups, the device allows {max_groups}"));
    }
    check_params(target, plan, dispatch, kernel)
}

fn check_params(target: &Target, plan: &Plan, dispatch: &Dispatch, kernel: &Kernel) -> Result<(), String> {
    if kernel.param_words == 0 {
        return Ok(());
    }
    let end = u64::from(dispatch.params_offset) + u64::from(kernel.param_words) * 4;
    if end > plan.params.len() as u64 || !dispatch.params_offset.is_multiple_of(target.uniform_align) {
        return Err(format!(
            "parameters at byte {} are not aligned to {} or end after {} bytes",
            dispatch.params_offset,
            target.uniform_align,
            plan.params.len()
        ));
    }
    Ok(())
}

/// Checks that a range is not empty, lies in its buffer, and begins at a multiple of `align` bytes.
fn check_bind(plan: &Plan, bind: &Bind, align: u32) -> Result<(), String> {
    let Bind { buffer, offset, bytes } = *bind;
    let buffer = buffer.0;
    let declared = plan.buffers.get(buffer as usize).ok_or_else(|| format!("there is no buffer {buffer}"))?;
    if offset.checked_add(bytes).is_none_or(|end| end > declared.bytes) {
        return Err(format!("{bytes} bytes from {offset} on lie outside buffer {buffer} of {} bytes", declared.bytes));
    }
    if bytes == 0 || !bytes.is_multiple_of(4) || !offset.is_multiple_of(u64::from(align.max(4))) {
        return Err(format!("a range of {bytes} bytes from {offset} on is not aligned (to 4 and {align})"));
    }
    Ok(())
}
