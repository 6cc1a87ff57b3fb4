//! Memory of this process.

/// Bytes of main memory that this process occupies, where the system tells.
pub(super) fn resident_bytes() -> Option<u64> {
    status("VmRSS:")
}

/// The most bytes of main memory that this process has occupied so far, where the system tells.
pub(crate) fn peak_bytes() -> Option<u64> {
    status("VmHWM:")
}

/// A size from what Linux says about a process, in a line such as `VmRSS:  1234 kB`.
fn status(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
