//! What the operating system says of this process and this machine (Linux; `None` elsewhere).

/// Peak resident set of this process, bytes.
pub fn peak_resident_bytes() -> Option<u64> {
    kib_field("/proc/self/status", "VmHWM:")
}

/// Resident set of this process now, bytes.
pub fn resident_bytes() -> Option<u64> {
    kib_field("/proc/self/status", "VmRSS:")
}

/// Starts a new peak: later calls of [`peak_resident_bytes`] count from here. Does nothing where that is not allowed.
pub fn reset_peak_resident() {
    // "5" resets VmHWM (man 5 proc, clear_refs). A refusal only makes the reported peak that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Memory that could be allocated without swapping, bytes.
pub fn available_bytes() -> Option<u64> {
    kib_field("/proc/meminfo", "MemAvailable:")
}

/// Name of the processor and the number of cores this process may use.
pub fn cpu_description() -> Option<String> {
    let cores = std::thread::available_parallelism().ok()?;
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, n)| n.trim()));
    Some(format!("{} ({cores} cores)", name.unwrap_or("unknown processor")))
}

fn kib_field(path: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    let kib: u64 = line[field.len()..].trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_covers_what_was_touched() {
        let bytes = 64 << 20;
        let touched = vec![1u8; bytes];
        assert!(peak_resident_bytes().unwrap() as usize > bytes);
        assert!(touched.iter().map(|&b| b as usize).sum::<usize>() == bytes);
        assert!(resident_bytes().unwrap() as usize > bytes);
        assert!(available_bytes().unwrap() > 0);
    }
}
