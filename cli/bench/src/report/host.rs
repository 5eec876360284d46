//! The machine that boots were measured on, for readers of figures.

use std::fs;

use serde::Serialize;

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Host {
    /// What its processor calls itself.
    pub processor: String,
    /// How many of them.
    pub processors: usize,
    /// Its RAM in MiB.
    pub memory_mib: u64,
    /// Its kernel's release.
    pub kernel: String,
}

impl Host {
    /// This machine.
    pub fn look() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = cpuinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == "model name").then(|| value.trim().to_owned())
        });
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = meminfo.lines().find_map(|line| {
            let value = line.strip_prefix("MemTotal:")?;
            value.split_ascii_whitespace().next()?.parse::<u64>().ok()
        });
        let kernel = rustix::system::uname();
        Self {
            processor: processor.unwrap_or_else(|| "unknown".to_owned()),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib.unwrap_or_default() / 1024,
            kernel: kernel.release().to_string_lossy().into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let host = Host::look();
        assert!(host.memory_mib > 0 && host.processors > 0);
        assert!(!host.kernel.is_empty() && !host.processor.is_empty());
    }
}
