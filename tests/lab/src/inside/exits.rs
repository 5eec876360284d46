//! Counts KVM's exits: a histogram trigger on the kernel's `kvm_exit` tracepoint
//! (Documentation/trace/histogram.rst). It counts every guest of the host, so one at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

const TRACING: &str = "/sys/kernel/tracing";
const TRIGGER: &str = "hist:keys=exit_reason:size=2048";

/// The tracepoint, ready to count.
#[derive(Debug)]
pub(super) struct ExitCounter {
    event: PathBuf,
}

/// Counting, until dropped.
#[derive(Debug)]
pub(super) struct Counting<'a>(&'a ExitCounter);

impl ExitCounter {
    /// Finds the tracepoint, mounting tracefs when nobody has.
    pub(super) fn open() -> Result<Self> {
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
        let event = tracing.join("events/kvm/kvm_exit");
        if !event.join("hist").exists() {
            bail!(
                "{} has no histogram: KVM exits cannot be counted",
                event.display()
            );
        }
        Ok(Self { event })
    }

    /// Starts at zero.
    pub(super) fn start(&self) -> Result<Counting<'_>> {
        self.trigger(TRIGGER)?;
        Ok(Counting(self))
    }

    fn trigger(&self, text: &str) -> Result<()> {
        fs::write(self.event.join("trigger"), text)
            .with_context(|| format!("Cannot set the trigger {text}"))
    }
}

impl Counting<'_> {
    /// Exits since the start.
    pub(super) fn hits(&self) -> Result<u64> {
        let histogram = fs::read_to_string(self.0.event.join("hist"))?;
        hits(&histogram).context("The histogram of kvm_exit has no total")
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.trigger(&format!("!{TRIGGER}")) {
            eprintln!("The trigger on kvm_exit stays: {error:#}");
        }
    }
}

/// The `Hits:` line of a histogram.
fn hits(histogram: &str) -> Option<u64> {
    let total = histogram
        .lines()
        .find_map(|line| line.trim().strip_prefix("Hits: "))?;
    total.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_of_a_histogram_is_found() {
        let text = "# event histogram\n\n{ exit_reason: 120 } hitcount: 7\n\nTotals:\n    Hits: 12\n    Entries: 2\n    Dropped: 0\n";
        assert_eq!(hits(text), Some(12));
        assert_eq!(hits("nothing"), None);
    }
}
