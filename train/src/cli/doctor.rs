//! `viral-wgpu doctor`: does the device compute right?

use std::fmt::Write as _;

use clap::builder::PossibleValuesParser;
use serde_json::json;
use viral_runtime::Device;

use super::options::DeviceOptions;
use super::{cache, devices, output};
use crate::engine;
use crate::error::{Error, Kind, Result, escape};
use crate::measure::correctness::{self, FAMILIES, Family, GRADIENTS, VALUES};

/// Run every kind of kernel on the device and compare the results with the host's
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  viral-wgpu doctor
  viral-wgpu doctor --adapter nvidia --json
  viral-wgpu doctor --family products --family cooperative-products")]
pub(super) struct Args {
    /// Only this kind of kernels; may be repeated
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(FAMILIES))]
    family: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

pub(super) fn run(args: Args) -> Result<()> {
    let device = engine::open_device_with_matrices(&args.device.load_defaults()?, cache::pipelines())?;
    let chosen = |name: &str| args.family.is_empty() || args.family.iter().any(|family| family == name);
    let families = correctness::check(&device, &chosen)?;
    let matrices = matrices(&device);
    if args.json {
        let report = json!({
            "device": devices::as_json(device.adapter()),
            "cooperative_matrices": matrices,
            "largest_error": { "values": VALUES, "gradients": GRADIENTS },
            "families": families,
        });
        output::print(&format!("{report:#}\n"))?;
    } else {
        output::print(&format!("{}\n{}", devices::as_text(device.adapter()), table(&families, &matrices)))?;
    }
    verdict(&device, &families)
}

/// What becomes of the device's cooperative matrices, in words.
fn matrices(device: &Device) -> String {
    match (device.target().cooperative_matrix, device.cooperative_fault()) {
        (Some(edge), _) => format!("used, {edge}×{edge}"),
        (None, Some(fault)) => format!("not used: {fault}"),
        (None, None) if device.adapter().cooperative_matrix.is_empty() => "none".into(),
        (None, None) => "not used: none of those listed can be relied on with this driver".into(),
    }
}

fn table(families: &[Family], matrices: &str) -> String {
    let mut text = format!("{:<22} {:>5} {:>9} {:>9}\n", "kernels", "cases", "values", "gradients");
    for family in families {
        let Family { name, cases, values, gradients, .. } = family;
        let _ = match (cases, family.failures.len()) {
            (0, _) => writeln!(text, "{name:<22} {cases:>5} {:>9} {:>9}", "-", "-"),
            (_, 0) => writeln!(text, "{name:<22} {cases:>5} {values:>9.1e} {gradients:>9.1e}  right"),
            (_, _) => writeln!(text, "{name:<22} {cases:>5} {values:>9.1e} {gradients:>9.1e}  WRONG"),
        };
    }
    let _ = writeln!(text, "\nErrors are relative: values may have {VALUES:.0e}, gradients {GRADIENTS:.0e}.");
    let _ = writeln!(text, "Cooperative matrices: {}.", escape(matrices));
    text
}

/// An error that names what was wrong.
fn verdict(device: &Device, families: &[Family]) -> Result<()> {
    let failures: Vec<&str> = families.iter().flat_map(|family| &family.failures).map(String::as_str).collect();
    if failures.is_empty() {
        return Ok(());
    }
    Err(Error {
        kind: Kind::Verification,
        what: "the device computes wrong results".into(),
        place: format!("{}, {}", device.adapter(), device.adapter().driver),
        why: failures.join("\n"),
        hint: "update the driver, or choose another --adapter or --backend; do not train on this one".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_wrong_and_what_there_is_not() {
        let family = |name, cases, failures: &[&str]| Family {
            name,
            cases,
            values: 1e-7,
            gradients: 2e-6,
            failures: failures.iter().map(|&text| text.to_owned()).collect(),
            ..Family::default()
        };
        let families =
            [family("rows", 3, &[]), family("cooperative-products", 0, &[]), family("views", 2, &["pad: y is off"])];
        let text = table(&families, "none");
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["rows", "3", "1.0e-7", "2.0e-6", "right"]);
        assert_eq!(lines[2], ["cooperative-products", "0", "-", "-"]);
        assert_eq!(lines[3], ["views", "2", "1.0e-7", "2.0e-6", "WRONG"]);
        let device = Device::noop(&Default::default()).unwrap();
        let error = verdict(&device, &families).unwrap_err();
        assert_eq!((error.kind.exit_code(), error.why.as_str()), (11, "pad: y is off"));
        assert_eq!(verdict(&device, &families[..2]), Ok(()));
    }
}
