//! The script through which cargo starts programs: when it provides a software device, and when it stays out of the way.
#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/software-vulkan").canonicalize().unwrap()
}

/// Runs the script with none of the settings that this test itself was started with.
fn run(settings: &[(&str, &str)], program: &[&str]) -> Output {
    let mut command = Command::new(script());
    for inherited in [
        "VK_DRIVER_FILES",
        "VK_ICD_FILENAMES",
        "VIRAL_SOFTWARE_VULKAN",
        "LP_NATIVE_VECTOR_WIDTH",
        "MESA_SHADER_CACHE_DIR",
    ] {
        command.env_remove(inherited);
    }
    command.envs(settings.iter().copied()).args(program).output().unwrap()
}

fn variable<'a>(output: &'a Output, name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

#[test]
fn it_stays_out_of_the_way_of_a_chosen_driver() {
    let settings: [&[(&str, &str)]; 3] = [
        &[("VK_DRIVER_FILES", "/chosen/driver.json")],
        &[("VK_ICD_FILENAMES", "/chosen/driver.json")],
        &[("VIRAL_SOFTWARE_VULKAN", "off")],
    ];
    for settings in settings {
        let output = run(settings, &["env"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        for (name, value) in settings {
            assert_eq!(variable(&output, name), Some(*value));
        }
        assert_eq!(variable(&output, "LP_NATIVE_VECTOR_WIDTH"), None);
        assert_eq!(variable(&output, "MESA_SHADER_CACHE_DIR"), None);
    }
}

#[test]
fn arguments_and_exit_codes_pass_through() {
    let output = run(&[], &["sh", "-c", "printf '%s|' \"$0\" \"$@\"; exit 7", "name", "two words", "*", ""]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "name|two words|*||");
}

#[test]
fn children_get_the_same_device_through_it() {
    let direct = run(&[], &["env"]);
    let child = run(&[], &["sh", "-c", "\"$VIRAL_RUNNER\" env"]);
    assert_eq!(variable(&direct, "VIRAL_RUNNER").map(Path::new), Some(script().as_path()));
    for name in ["VK_DRIVER_FILES", "MESA_SHADER_CACHE_DIR", "LP_NATIVE_VECTOR_WIDTH"] {
        assert_eq!(variable(&child, name), variable(&direct, name), "{name}");
    }
}

#[test]
fn where_it_cannot_work_one_sentence_says_so_and_the_program_runs() {
    let settings = [("VIRAL_SOFTWARE_VULKAN", "on"), ("VIRAL_CACHE_DIR", "/proc/nowhere")];
    let output = run(&settings, &["echo", "running"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "running\n");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.starts_with("viral-wgpu: no software Vulkan device: "), "{message}");
}
