//! What is read from the machine: processor time, memory, and what the table must say about where it was made.

use std::fs;

use bulkhead_sys::procfs::{self, Process};
use serde_json::{Value, json};

use crate::Error;
use crate::figures::CpuTimes;

/// Descriptors of a process that are looked at for maps.
const DESCRIPTORS_MAX: usize = 4096;

pub fn cpu_times() -> Result<CpuTimes, Error> {
    let stat = fs::read_to_string("/proc/stat").map_err(Error::io("read /proc/stat"))?;
    CpuTimes::parse(&stat).ok_or(Error::Unreadable { program: "/proc/stat".into(), output: String::new() })
}

/// Memory of a process now, and the most it ever had: bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    pub rss: u64,
    pub rss_max: u64,
    /// Of the BPF maps that it holds open: kernel memory that no process is charged for.
    pub bpf_maps: u64,
}

pub fn memory(pid: u32) -> Result<Memory, Error> {
    let rss = Process { pid }.rss_bytes()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let rss_max = number_field(&status, "VmHWM:").map_or(rss, |kib| kib * 1024);
    Ok(Memory { rss, rss_max: rss_max.max(rss), bpf_maps: bpf_map_bytes(pid) })
}

/// `memlock` of each map among its descriptors, each map once (`bpf_map_show_fdinfo` in kernel/bpf/syscall.c).
fn bpf_map_bytes(pid: u32) -> u64 {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return 0 };
    let mut seen = std::collections::BTreeMap::new();
    for entry in entries.flatten().take(DESCRIPTORS_MAX) {
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        if let (Some(id), Some(bytes)) = (number_field(&info, "map_id:"), number_field(&info, "memlock:")) {
            seen.insert(id, bytes);
        }
    }
    seen.values().sum()
}

/// What the machine is, for the table's head.
pub fn facts() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map(|(_, name)| name.trim().to_owned());
    json!({
        "kernel": procfs::kernel_release().ok(),
        "cpus": std::thread::available_parallelism().map(usize::from).ok(),
        "cpu_model": model,
        "load_average_at_start": procfs::load_average().ok().map(|load| load[0]),
    })
}

fn number_field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_files_are_found_by_name() {
        let text = "Name:\tx\nVmHWM:\t   1234 kB\nmemlock:\t4096\n";
        assert_eq!(number_field(text, "VmHWM:"), Some(1234));
        assert_eq!(number_field(text, "memlock:"), Some(4096));
        assert_eq!(number_field(text, "VmRSS:"), None);
    }
}
