//! Short cuts for writes of the driver: from a kick to the device's eventfd, and from an
//! acknowledgement to nowhere. The machine provides them.

use std::io;

use vmm_sys_util::eventfd::EventFd;

/// Brings a driver's writes to where they belong without the transport's help.
pub trait Doorbells: Send {
    /// From now on, 4-byte writes of `queue` to the notify register fire `kick`, and no longer
    /// reach the transport. Called at most once per queue, before its device first runs.
    ///
    /// # Errors
    /// When the host refuses; the transport goes on taking the kicks then, which is slower.
    fn connect(&self, queue: u16, kick: &EventFd) -> io::Result<()>;

    /// From now on, 4-byte writes of `cause` to the acknowledge register go nowhere. Called at most
    /// once, before the device first runs: the transport lets `cause` stand in the status register
    /// from then on, whatever the driver acknowledges.
    ///
    /// # Errors
    /// When the host refuses; the transport goes on taking the writes then, which is slower.
    fn absorb(&self, cause: u32) -> io::Result<()>;
}
