//! Counts KVM's exits: a histogram trigger on the kernel's tracepoints `kvm_exit` and `kvm_userspace_exit`
//! (Documentation/trace/histogram.rst). It counts every guest of the host, so one at a time.
//!
//! Reasons are numbers of the processor's maker: AMD's manual, volume 2, appendix C, and Intel's,
//! volume 3, appendix C; Linux has them in `asm/svm.h` and `asm/vmx.h`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

const TRACING: &str = "/sys/kernel/tracing";
/// Every exit of a guest's.
const EXIT: (&str, &str) = ("kvm_exit", "hist:keys=exit_reason:size=2048");
/// Those that KVM leaves to the monitor.
const USER_EXIT: (&str, &str) = ("kvm_userspace_exit", "hist:keys=reason:size=256");

/// Names of reasons that occur often, on AMD's processors.
const SVM: [(u32, &str); 10] = [
    (0x14, "CR4"),
    (0x60, "host interrupt"),
    (0x64, "interrupt window"),
    (0x72, "CPUID"),
    (0x78, "HLT"),
    (0x7b, "port"),
    (0x7c, "MSR"),
    (0x81, "VMMCALL"),
    (0x8d, "XSETBV"),
    (0x400, "page fault or MMIO"),
];

/// The same on Intel's.
const VMX: [(u32, &str); 12] = [
    (1, "host interrupt"),
    (7, "interrupt window"),
    (10, "CPUID"),
    (12, "HLT"),
    (18, "VMCALL"),
    (28, "CR4"),
    (30, "port"),
    (31, "MSR"),
    (32, "MSR"),
    (48, "page fault or MMIO"),
    (49, "page fault or MMIO"),
    (52, "preemption timer"),
];

/// How many exits there were, by reason.
pub(super) type Reasons = BTreeMap<String, u64>;

/// The tracepoint, ready to count.
#[derive(Debug)]
pub(super) struct ExitCounter {
    event: PathBuf,
    trigger: &'static str,
    names: &'static [(u32, &'static str)],
}

/// Counting, until dropped.
#[derive(Debug)]
pub(super) struct Counting<'a>(&'a ExitCounter);

impl ExitCounter {
    /// Counts every exit, by the processor's reason; mounts tracefs when nobody has.
    pub(super) fn open() -> Result<Self> {
        let processor = fs::read_to_string("/proc/cpuinfo").context("Cannot read /proc/cpuinfo")?;
        let is_svm = processor.split_ascii_whitespace().any(|flag| flag == "svm");
        Self::of(EXIT, if is_svm { &SVM } else { &VMX })
    }

    /// Counts those that KVM leaves to the monitor.
    pub(super) fn to_monitor() -> Result<Self> {
        Self::of(USER_EXIT, &[])
    }

    fn of(
        (event, trigger): (&str, &'static str),
        names: &'static [(u32, &'static str)],
    ) -> Result<Self> {
        let tracing = Path::new(TRACING);
        if !tracing.join("events").exists() {
            let mount = Command::new("mount")
                .args(["-t", "tracefs", "tracefs", TRACING])
                .status()
                .context("Cannot start mount")?;
            if !mount.success() {
                bail!("tracefs cannot be mounted at {TRACING} ({mount})");
            }
        }
        let event = tracing.join("events/kvm").join(event);
        if !event.join("hist").exists() {
            bail!(
                "{} has no histogram: KVM exits cannot be counted",
                event.display()
            );
        }
        Ok(Self {
            event,
            trigger,
            names,
        })
    }

    /// Starts at zero.
    pub(super) fn start(&self) -> Result<Counting<'_>> {
        self.set(self.trigger)?;
        Ok(Counting(self))
    }

    fn set(&self, text: &str) -> Result<()> {
        fs::write(self.event.join("trigger"), text)
            .with_context(|| format!("Cannot set the trigger {text}"))
    }
}

impl Counting<'_> {
    /// Exits since the start.
    pub(super) fn reasons(&self) -> Result<Reasons> {
        let histogram = fs::read_to_string(self.0.event.join("hist"))?;
        Ok(reasons(&histogram, self.0.names))
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.set(&format!("!{}", self.0.trigger)) {
            eprintln!("A trigger of KVM's tracepoints stays: {error:#}");
        }
    }
}

/// The lines of a histogram, such as `{ exit_reason:        120 } hitcount:          7`.
fn reasons(histogram: &str, names: &[(u32, &str)]) -> Reasons {
    let mut reasons = Reasons::new();
    for line in histogram.lines() {
        let Some((key, count)) = line.split_once("hitcount:") else {
            continue;
        };
        let number: String = key.chars().filter(char::is_ascii_digit).collect();
        let (Ok(number), Ok(count)) = (number.parse::<u32>(), count.trim().parse::<u64>()) else {
            continue;
        };
        let name = names.iter().find(|(reason, _)| *reason == number);
        let name = name.map_or_else(
            || format!("reason {number:#x}"),
            |(_, name)| (*name).to_owned(),
        );
        *reasons.entry(name).or_default() += count;
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_of_a_histogram_are_told_by_reason() {
        let text = "# event histogram\n#\n# trigger info: hist:keys=exit_reason:vals=hitcount\n\n\
                    { exit_reason:        114 } hitcount:          7\n\
                    { exit_reason:          5 } hitcount:          4\n\n\
                    Totals:\n    Hits: 11\n    Entries: 2\n    Dropped: 0\n";
        let told = reasons(text, &SVM);
        let expected = [("CPUID", 7), ("reason 0x5", 4)];
        assert_eq!(told, expected.map(|(name, n)| (name.to_owned(), n)).into());
        assert_eq!(reasons("nothing", &VMX), Reasons::new());
    }

    #[test]
    fn what_a_maker_counts_twice_is_added_up() {
        let text = "{ exit_reason: 31 } hitcount: 2\n{ exit_reason: 32 } hitcount: 3\n";
        assert_eq!(reasons(text, &VMX).get("MSR"), Some(&5));
    }
}
