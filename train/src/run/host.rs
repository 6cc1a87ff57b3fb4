//! Memory of this process.

/// Bytes of main memory that this process occupies, where the system tells.
pub(super) fn resident_bytes() -> Option<u64> {
    // Linux: a line `VmRSS:  1234 kB`.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
