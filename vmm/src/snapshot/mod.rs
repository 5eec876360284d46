//! A snapshot of a running machine's disk, into a file that whoever asks for it has opened.
//!
//! ```text
//! asked ─▶ flush ─▶ drain the disk ─▶ halt ─▶ arm ─▶ go on ─▶ share or copy the blocks ─▶ done
//!                           └─ an error, a time limit, or the other end gone ─▶ go on ─▶ failed
//! ```
//!
//! Everything that may be slow is done by the job's own thread, while the guest runs: nothing waits for
//! a disk while vCPUs are halted. [`Job::take`] is all that the control thread has to do with it. The asker hears of it on a socket of its own, and the
//! snapshot is given up when the other end of that is closed.
//!
//! Not here: names, directories and manifests of snapshots (the asker's), and how old blocks are kept
//! (`devices::disk::Preservation`).

mod job;
mod report;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::Duration;

use devices::disk::{GateError, PreserveError};
use serde::{Deserialize, Serialize};

pub(crate) use self::job::Job;
pub(crate) use self::report::micros;
pub use self::report::{Pause, Report};

/// How the content comes into the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// Shared blocks where the file system can, else a copy while the guest runs.
    #[default]
    Auto,
    /// Shared blocks, or no snapshot.
    Reflink,
    /// A copy while the guest runs; what it overwrites is copied first.
    Copy,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSpec {
    /// The disk, by its name.
    pub disk: String,
    /// The file that the disk has to be, by its numbers of device and inode: a slot may have been
    /// given another state since the machine started.
    #[serde(default)]
    pub identity: Option<(u64, u64)>,
    /// How the content comes into the file.
    #[serde(default)]
    pub backend: Backend,
    /// Bytes per second that are copied while no write of the guest waits for the copy.
    #[serde(default)]
    pub rate: Option<NonZeroU64>,
    /// Longest time in milliseconds that the guest may be halted, and that its disk may take to stand
    /// still before.
    #[serde(default = "pause_limit_ms")]
    pub pause_limit_ms: u32,
}

impl SnapshotSpec {
    /// A snapshot of this disk, with what is usual otherwise.
    pub fn of(disk: impl Into<String>) -> Self {
        Self {
            disk: disk.into(),
            identity: None,
            backend: Backend::Auto,
            rate: None,
            pause_limit_ms: pause_limit_ms(),
        }
    }

    fn pause_limit(&self) -> Duration {
        Duration::from_millis(self.pause_limit_ms.into())
    }
}

/// A second: longer than any healthy disk takes for what little is left to flush.
fn pause_limit_ms() -> u32 {
    1000
}

/// What a machine says of a snapshot under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// The disk, by its name.
    pub disk: String,
    /// Whether its content is decided.
    pub taken: bool,
    /// Bytes of the image that were shared or copied, or need not be.
    pub settled: u64,
    /// Bytes of the image.
    pub size: u64,
}

/// A request with what comes with it.
#[derive(Debug)]
pub struct SnapshotOrder {
    /// What is asked for.
    pub spec: SnapshotSpec,
    /// The empty file to be filled, open for reading and writing.
    pub target: File,
    /// A stream socket that hears of it: lines of JSON, each a [`Report`].
    pub reports: OwnedFd,
}

/// Why a snapshot was not begun.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotRefusal {
    /// One at a time.
    #[error("Another snapshot is being taken: wait until it is done")]
    Busy,
    /// There is no such disk.
    #[error("There is no disk '{disk}': choose one of {known}")]
    NoDisk {
        /// What was asked for.
        disk: String,
        /// The disks there are.
        known: String,
    },
    /// The disk is another file.
    #[error(
        "Disk '{disk}' is another file: the machine was started before its state was assigned; \
         restart it first"
    )]
    OtherFile {
        /// The disk.
        disk: String,
    },
    /// The file cannot be filled.
    #[error(
        "The file for the snapshot is {found}: pass an empty regular file, open for reading and writing"
    )]
    Target {
        /// What it is instead.
        found: &'static str,
    },
    /// The host refused.
    #[error("Failed to {action}")]
    Host {
        /// What was being done.
        action: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// Why a snapshot that was begun was not completed. The machine runs on.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// What was written could not be made durable.
    #[error("Failed to write the disk's data to its host's disk")]
    Flush(#[source] io::Error),
    /// The blocks cannot be shared.
    #[error(
        "The file system cannot share the image's blocks with the snapshot: choose the backend `copy`"
    )]
    Reflink(#[source] io::Error),
    /// The host refused.
    #[error("Failed to {action}")]
    Host {
        /// What was being done.
        action: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The machine was not halted.
    #[error("The machine was not halted: {reason}")]
    NotHalted {
        /// Why.
        reason: String,
    },
    /// The disk did not stand still.
    #[error("The disk did not stand still: the guest runs on")]
    NotDrained(#[from] GateError),
    /// It took too long while the guest was halted.
    #[error("It took longer than {} ms while the guest was halted: the guest runs on", limit.as_millis())]
    TooSlow {
        /// The limit.
        limit: Duration,
    },
    /// The copy failed.
    #[error("Failed to copy the disk")]
    Copy(#[from] PreserveError),
    /// A write of the guest waited for too long.
    #[error("The copy did not go on for {} s while the guest waited for it", limit.as_secs())]
    Stalled {
        /// How long it had.
        limit: Duration,
    },
    /// Nobody waits for it any more.
    #[error("Whoever asked for it is gone")]
    Abandoned,
    /// The machine has ended.
    #[error("The machine ended before the snapshot was complete")]
    MachineEnded,
}
