//! What a console is configured to be.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::Input;
use crate::device::DeviceId;
use crate::registry::Position;

/// A virtio console with one port.
#[derive(Debug, Clone)]
pub struct ConsoleConfig {
    /// Name within the machine.
    pub id: DeviceId,
    /// Place on the machine.
    pub position: Position,
}

/// Where a guest's output goes. Never blocks: a device has to stop at any time.
pub trait Output: Send {
    /// Takes bytes from the start of `bytes`. Returns how many; fewer than there are only when there
    /// is no room for more, and then [`room`](Self::room) fires once there is.
    fn offer(&mut self, bytes: &[u8]) -> usize;

    /// Becomes readable when there is room again: a non-blocking eventfd, which the caller reads.
    fn room(&self) -> BorrowedFd<'_>;
}

/// The host's side of a console.
pub struct ConsoleHost {
    /// What the guest is to read.
    pub input: Arc<Input>,
    /// What the guest wrote.
    pub output: Box<dyn Output>,
}

impl std::fmt::Debug for ConsoleHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleHost").finish_non_exhaustive()
    }
}
