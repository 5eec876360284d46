//! What a boot leaves behind in its slot's run directory: when it reached what, to be read after the
//! machine has ended.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use vmm::Outcome;
use vmm::phases::{Phases, Stamp};

use crate::resolve::Slot;

/// Name of the file.
const NAME: &str = "last-boot.json";

/// One boot that has ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BootRecord {
    /// Version of slotvmm.
    pub(crate) version: String,
    /// When its process started, in nanoseconds of the host's monotonic clock.
    pub(crate) exec_ns: u64,
    /// Its phases.
    pub(crate) phases: Vec<Stamp>,
    /// How the machine ended: one of `run`'s outcomes.
    pub(crate) outcome: serde_json::Value,
}

/// Leaves the record of a boot. A run directory that cannot be written to any more is no reason for
/// the guest's end to be reported as a failure.
pub(crate) fn save(slot: &Slot, outcome: Outcome, phases: &Phases) {
    let path = path(&slot.paths.run_dir);
    if let Err(error) = write(&path, outcome, phases) {
        tracing::warn!(%error, path = %path.display(), "The boot's phases are not kept");
    }
}

fn write(path: &Path, outcome: Outcome, phases: &Phases) -> io::Result<()> {
    let elapsed = u64::try_from(phases.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let record = BootRecord {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        exec_ns: monotonic_ns().saturating_sub(elapsed),
        phases: phases.stamps(),
        outcome: serde_json::to_value(outcome)?,
    };
    fs::write(path, serde_json::to_vec(&record)?)
}

/// Where the record of a slot with this run directory is.
pub(crate) fn path(run_dir: &Path) -> PathBuf {
    run_dir.join(NAME)
}

/// Reads the record that a boot left in `run_dir`.
///
/// # Errors
/// When there is none, or it is damaged.
pub(crate) fn load(run_dir: &Path) -> io::Result<BootRecord> {
    let bytes = fs::read(path(run_dir))?;
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}

fn monotonic_ns() -> u64 {
    let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn record_tells_when_the_process_started() {
        let dir = tempfile::tempdir().unwrap();
        let before = monotonic_ns();
        let phases = Phases::since(Instant::now());
        phases.stamp(vmm::phases::Phase::VcpuRun);
        write(&dir.path().join(NAME), Outcome::Poweroff, &phases).unwrap();
        let record = load(dir.path()).unwrap();
        let after = monotonic_ns();
        assert!((before..=after).contains(&record.exec_ns), "{record:?}");
        assert_eq!(record.phases, phases.stamps());
        assert_eq!(record.outcome, "poweroff");
    }
}
