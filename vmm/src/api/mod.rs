//! The control socket: HTTP/1.1 and JSON on a Unix socket.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/vm` | 200 with a [`VmInfo`] |
//! | `PUT /v1/vm/pause` | 204 once nothing of the guest runs |
//! | `PUT /v1/vm/resume` | 204 |
//! | `PUT /v1/vm/power-button` | 204: the button is pressed, the guest decides |
//! | `PUT /v1/vm/reset` | 204, or no answer any more: the machine ends as if the guest had rebooted |
//! | `PUT /v1/vm/shutdown` | 204, or no answer any more: the machine ends now, without the guest's consent |
//! | `GET /v1/vm/snapshot` | 200 with a [`SnapshotInfo`], or `null` when no snapshot is under way |
//! | `PUT /v1/vm/snapshot` | 202: a snapshot was begun; see below |
//!
//! The body of a request for a snapshot is a [`SnapshotSpec`](crate::snapshot::SnapshotSpec). Two
//! descriptors come with its first byte (`SCM_RIGHTS`): the empty file to be filled, and one end of
//! a pair of stream sockets that hears how it goes, in lines of JSON that are each a
//! [`Report`](crate::snapshot::Report). Closing the other end gives the snapshot up.
//!
//! Anything else is 404 or 405; a request that the machine's state does not allow is 409,
//! and so is a press of a power button that is not there. Errors carry an [`ErrorBody`].

mod carrier;
mod connections;
#[cfg(any(test, feature = "test-utils"))]
pub mod fuzz;
mod server;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::lifecycle::VmState;
use crate::phases::Stamp;
use crate::readiness::ReadinessInfo;
use crate::snapshot::{SnapshotInfo, SnapshotOrder, SnapshotRefusal};

pub use server::{ApiServer, serve};

/// What a machine says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmInfo {
    /// The slot.
    pub slot: String,
    /// Version of slotvmm that runs it.
    pub version: String,
    /// Process that runs it.
    pub pid: u32,
    /// What it is doing.
    pub state: VmState,
    /// Whether the guest's kernel has reported a panic on the console.
    pub panicked: bool,
    /// vCPUs.
    pub vcpus: u8,
    /// Guest RAM in MiB.
    pub memory_mib: u64,
    /// The guest's address on its socket device, when it has one.
    pub cid: Option<u32>,
    /// How far the guest is.
    pub readiness: ReadinessInfo,
    /// The snapshot under way, if there is one.
    #[serde(default)]
    pub snapshot: Option<SnapshotInfo>,
    /// Virtio devices in order of position.
    pub devices: Vec<DeviceInfo>,
    /// Milliseconds since the process started.
    pub uptime_ms: u64,
    /// When the boot reached what.
    pub phases: Vec<Stamp>,
}

/// What a machine says of one of its virtio devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Its name.
    pub id: String,
    /// Its kind, such as `virtio-fs`.
    pub kind: String,
    /// Whether it cannot go on until the guest's driver resets it: the driver broke the protocol,
    /// or a share lost its backend.
    pub needs_reset: bool,
}

/// The body of an answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong, for people.
    pub error: String,
}

/// What can be asked of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Describe it.
    Info,
    /// Take the vCPUs out of the guest and drain the devices.
    Pause,
    /// Let devices and vCPUs go on.
    Resume,
    /// Press the ACPI power button.
    PowerButton,
    /// End as if the guest had rebooted.
    Reset,
    /// End now.
    Shutdown,
}

/// A good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To [`Verb::Info`].
    Info(Box<VmInfo>),
    /// To everything else.
    Done,
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The machine's state does not allow it.
    #[error("{0}")]
    State(#[from] crate::lifecycle::TransitionError),
    /// The guest has ended, and a snapshot is still being completed.
    #[error(
        "The guest has ended; its process completes a snapshot first. `slotvmm stop --timeout 0` gives \
         that up"
    )]
    Ending,
    /// There is no power button to press.
    #[error(
        "The machine has no power button, since it has no ACPI (`boot.discovery` is `cmdline`); \
         end it by a reboot from inside, or stop it hard with `slotvmm stop --timeout 0`"
    )]
    NoPowerButton,
    /// A snapshot cannot be begun.
    #[error(transparent)]
    Snapshot(#[from] SnapshotRefusal),
    /// A device did not stop or start.
    #[error("Device {id} failed to {action}: {reason}")]
    Device {
        /// The device.
        id: String,
        /// What was asked of it.
        action: &'static str,
        /// What it said.
        reason: String,
    },
}

/// A request on its way to the control thread.
#[derive(Debug)]
pub struct Request {
    /// What is asked.
    pub verb: Verb,
    /// Where the answer goes; a requester that has gone away does not matter.
    pub reply: oneshot::Sender<Result<Reply, RequestError>>,
}

/// A request for a snapshot on its way to the control thread.
#[derive(Debug)]
pub struct SnapshotRequest {
    /// What is asked, with the descriptors for it.
    pub order: SnapshotOrder,
    /// Where the answer goes, once it was begun or refused.
    pub reply: oneshot::Sender<Result<Reply, RequestError>>,
}
