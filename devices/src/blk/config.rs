//! What a disk is configured to be.

use crate::device::DeviceId;
use crate::registry::Position;

/// A virtio block device. Its image arrives open, as a raw file or block device.
#[derive(Debug, Clone)]
pub struct BlkConfig {
    /// Name within the machine.
    pub id: DeviceId,
    /// Place on the machine.
    pub position: Position,
    /// What the guest may do.
    pub access: Access,
    /// What `VIRTIO_BLK_T_GET_ID` answers; at most 20 bytes of ASCII.
    pub serial: Option<String>,
    /// How requests reach the image.
    pub engine: Engine,
    /// Whether `DISCARD` and `WRITE_ZEROES` are offered; only to writable disks.
    pub discard: Discard,
}

/// What the guest may do with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads only: the image is open read-only and the request path refuses writes.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// How requests reach the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// io_uring where the host offers it, else synchronous calls.
    #[default]
    Auto,
    /// io_uring, or the device is not built.
    IoUring,
    /// Synchronous calls on the device's thread.
    Sync,
}

/// Whether the guest may give blocks back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Discard {
    /// Offered; holes are punched in the image.
    #[default]
    Offer,
    /// Not offered.
    Hide,
}
