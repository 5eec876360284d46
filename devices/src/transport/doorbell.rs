//! The short cut from the driver's kick to the device's eventfd; the machine provides it.

use std::io;

use vmm_sys_util::eventfd::EventFd;

/// Brings a driver's writes to [`QUEUE_NOTIFY`](super::registers::QUEUE_NOTIFY) to the device
/// without the transport's help.
pub trait Doorbells: Send {
    /// From now on, 4-byte writes of `queue` to the notify register fire `kick`, and no longer
    /// reach the transport. Called at most once per queue, before its device first runs.
    ///
    /// # Errors
    /// When the host refuses; the transport goes on taking the kicks then, which is slower.
    fn connect(&self, queue: u16, kick: &EventFd) -> io::Result<()>;
}
