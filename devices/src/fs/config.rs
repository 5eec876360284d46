//! What a shared directory is configured to be.

use crate::device::DeviceId;
use crate::registry::Position;

/// Longest tag: the field of the configuration space (§5.11.4).
pub const MAX_TAG_BYTES: usize = 36;

/// Most request queues of a share.
pub const MAX_REQUEST_QUEUES: u16 = 16;

/// A virtio file system device.
#[derive(Debug, Clone)]
pub struct FsConfig {
    /// Name within the machine.
    pub id: DeviceId,
    /// Place on the machine.
    pub position: Position,
    /// What the guest mounts it by: 1 to [`MAX_TAG_BYTES`] bytes, without NUL.
    pub tag: String,
    /// Request queues, 1 to [`MAX_REQUEST_QUEUES`]; fewer when the backend serves fewer.
    pub queues: u16,
    /// Size of the window in which the backend may have files mapped, in bytes; see
    /// [`Window`](super::window::Window). None has no window.
    pub window: Option<u64>,
    /// What to do when the backend is gone.
    pub on_exit: OnExit,
}

/// What becomes of a share whose backend is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// Another backend takes the queues over, unanswered requests included. After five deaths
    /// within a minute, the same as `Fail`.
    Restart,
    /// The device asks for a reset, and until then answers every request with an error.
    Fail,
}
