//! `viral-wgpu devices`: what can train here.

use std::fmt::Write;

use serde_json::{Value, json};
use viral_runtime::{AdapterChoice, AdapterReport, Backend};

use super::options::DeviceOptions;
use super::output;
use crate::error::{Result, escape};
use crate::measure::correctness;

/// List the devices of this machine, best first, with driver, limits and features
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

pub(super) fn run(args: Args) -> Result<()> {
    let choice = AdapterChoice::from(&args.device.load_defaults()?.device);
    let adapters = matching(&choice)?;
    let text = if args.json {
        format!("{:#}\n", Value::from_iter(adapters.iter().map(as_json)))
    } else {
        adapters.iter().map(as_text).collect::<Vec<_>>().join("\n")
    };
    output::print(&text)
}

/// The best usable adapter that `choice` fits.
pub(super) fn find(choice: &AdapterChoice) -> Result<AdapterReport> {
    let mut adapters = matching(choice)?;
    let position = adapters.iter().position(|report| report.unsuitable.is_none()).unwrap_or(0);
    Ok(adapters.swap_remove(position))
}

/// The adapters that `choice` fits, at least one.
fn matching(choice: &AdapterChoice) -> Result<Vec<AdapterReport>> {
    let (adapters, others): (Vec<_>, Vec<_>) =
        viral_runtime::list().into_iter().partition(|report| matches(choice, report));
    if adapters.is_empty() { Err(nothing(choice, &others).into()) } else { Ok(adapters) }
}

fn matches(choice: &AdapterChoice, report: &AdapterReport) -> bool {
    let adapter = choice.adapter.as_deref().is_none_or(|wanted| match wanted.parse::<usize>() {
        Ok(index) => report.index == index,
        Err(_) => report.name.to_lowercase().contains(&wanted.to_lowercase()),
    });
    adapter && (choice.backend == Backend::Auto || choice.backend == report.backend)
}

fn nothing(choice: &AdapterChoice, others: &[AdapterReport]) -> viral_runtime::Error {
    match &choice.adapter {
        Some(wanted) if !others.is_empty() => viral_runtime::Error::UnknownAdapter {
            wanted: wanted.clone(),
            available: others.iter().map(ToString::to_string).collect(),
        },
        _ => viral_runtime::Error::NoDevice { backend: choice.backend.to_string() },
    }
}

/// What `viral-wgpu devices` prints about an adapter.
pub(super) fn as_text(report: &AdapterReport) -> String {
    let target = &report.target;
    let subgroups = match target.subgroup {
        Some((min, max)) if min == max => format!("of {min} lanes"),
        Some((min, max)) => format!("of {min} to {max} lanes"),
        None => "none".into(),
    };
    let matrices: Vec<_> = report
        .cooperative_matrix
        .iter()
        .map(|shape| format!("{}×{}×{} {}→{}", shape.m, shape.n, shape.k, shape.operands, shape.accumulator))
        .collect();
    let rows = [
        ("kind", format!("{}, {}", report.kind, report.backend)),
        ("driver", report.driver.clone()),
        (
            "workgroup",
            format!("{} invocations, {}", target.max_workgroup_invocations, bytes(target.max_workgroup_bytes.into())),
        ),
        (
            "buffers",
            format!(
                "{} each, {} bound, {} in a kernel",
                bytes(target.max_buffer_bytes),
                bytes(target.max_binding_bytes),
                target.max_storage_buffers
            ),
        ),
        ("subgroups", subgroups),
        ("f16", yes_no(target.f16).into()),
        ("matrices", if matrices.is_empty() { "none".into() } else { matrices.join(", ") }),
        ("kernels", correctness::variants(target).join(", ")),
        ("timing", if report.timestamps { "of single kernels" } else { "none" }.into()),
        ("cache", if report.pipeline_cache { "compiled kernels are kept by the driver" } else { "none" }.into()),
    ];
    let mut text = format!("{}  {}\n", report.index, escape(&report.name));
    for (name, value) in rows {
        let _ = writeln!(text, "   {name:<9}  {}", escape(&value));
    }
    if let Some(why) = &report.unsuitable {
        let _ = writeln!(text, "   unusable   {}", escape(why));
    }
    text
}

/// The same as JSON.
pub(super) fn as_json(report: &AdapterReport) -> Value {
    let target = &report.target;
    let matrices = report.cooperative_matrix.iter().map(|shape| {
        json!({
            "m": shape.m,
            "n": shape.n,
            "k": shape.k,
            "operands": shape.operands,
            "accumulator": shape.accumulator,
        })
    });
    json!({
        "index": report.index,
        "name": report.name,
        "backend": report.backend.name(),
        "kind": report.kind.to_string(),
        "driver": report.driver,
        "usable": report.unsuitable.is_none(),
        "unusable_because": report.unsuitable,
        "max_buffer_bytes": target.max_buffer_bytes,
        "max_binding_bytes": target.max_binding_bytes,
        "max_storage_buffers": target.max_storage_buffers,
        "max_workgroup_invocations": target.max_workgroup_invocations,
        "max_workgroup_bytes": target.max_workgroup_bytes,
        "subgroup_lanes": target.subgroup.map(|(min, max)| [min, max]),
        "f16": target.f16,
        "int64": target.int64,
        "cooperative_matrices": Value::from_iter(matrices),
        "kernels": correctness::variants(target),
        "timestamps": report.timestamps,
        "pipeline_cache": report.pipeline_cache,
    })
}

fn yes_no(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

/// Bytes in the largest unit of which there is at least one.
fn bytes(n: u64) -> String {
    const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS.into_iter().find(|(shift, _)| n >> shift > 0) {
        Some((shift, unit)) => {
            let amount = n as f64 / (1u64 << shift) as f64;
            let text = format!("{amount:.1}");
            format!("{} {unit}", text.trim_end_matches(".0"))
        }
        None => format!("{n} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        let sizes =
            [(0, "0 bytes"), (1023, "1023 bytes"), (16 << 10, "16 KiB"), (128 << 20, "128 MiB"), (5 << 29, "2.5 GiB")];
        for (n, text) in sizes {
            assert_eq!(bytes(n), text);
        }
    }
}
