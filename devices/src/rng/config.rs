//! What an entropy source is configured to be.

use crate::device::DeviceId;
use crate::registry::Position;

/// A virtio entropy source fed by the host's `getrandom`.
#[derive(Debug, Clone)]
pub struct RngConfig {
    /// Name within the machine.
    pub id: DeviceId,
    /// Place on the machine.
    pub position: Position,
}
