//! The frontend's half of vhost-user: a device whose queues another process serves.
//!
//! The other process, the *backend*, maps guest RAM itself, is kicked and interrupts the driver
//! without this process; only set-up and stop go through the socket. Which device it is, who
//! starts the backend, and what becomes of the device when the backend dies is not decided here.
//!
//! Protocol: <https://qemu-project.gitlab.io/qemu/interop/vhost-user.html>.

mod connection;
mod requests;
pub(crate) mod ring;
mod sys;
mod transfer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;

pub use connection::{Connection, Lines};
pub(crate) use sys::borrow;
pub use transfer::TransferLimits;

/// Leads to a backend.
pub trait Connect: fmt::Debug + Send {
    /// Connects. Called again after a backend is gone: the next stream leads to another one, or to
    /// the same one after it came back.
    ///
    /// # Errors
    /// When there is no backend to be had.
    fn connect(&mut self) -> io::Result<UnixStream>;

    /// Whether its backends are to wait for a kick by reading it. The kicks of others are read without
    /// waiting, as is usual.
    fn reads_wait(&self) -> bool {
        false
    }
}

/// Memory of the device that its driver reads, and in which its backend has files mapped.
pub trait SharedRegion: fmt::Debug + Send + Sync {
    /// Which one it is (virtio 1.2 §2.10).
    fn id(&self) -> u8;

    /// Its size, in bytes.
    fn bytes(&self) -> u64;

    /// Shows `len` bytes of `file` from `file_offset` on at `offset`, in the place of what was there.
    ///
    /// # Errors
    /// When the place or the file does not suit, or the host refuses.
    fn map(&self, offset: u64, len: u64, file: File, file_offset: u64) -> io::Result<()>;

    /// Shows zeroes at `offset` for `len` bytes.
    ///
    /// # Errors
    /// When the place does not suit, or the host refuses.
    fn unmap(&self, offset: u64, len: u64) -> io::Result<()>;
}

/// Why a backend cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VhostUserError {
    /// Nobody is there.
    #[error("Failed to connect to the vhost-user backend")]
    Connect(#[source] io::Error),
    /// It broke the protocol, refused, or did not answer in time.
    #[error("Backend failed to {action}")]
    Request {
        /// What it was asked to do.
        action: &'static str,
        /// What became of that.
        #[source]
        source: vhost::Error,
    },
    /// It lacks what nothing works without.
    #[error("Backend offers features {offered:#x}, without {missing}")]
    Features {
        /// What it offers.
        offered: u64,
        /// The name of what is missing.
        missing: &'static str,
    },
    /// It serves fewer queues than the device has.
    #[error("Backend serves {served} queues, at least {needed} are needed")]
    Queues {
        /// Queues it serves.
        served: u16,
        /// Queues the device needs.
        needed: u16,
    },
    /// It is gone, and no other one took over.
    #[error("Backend is gone")]
    Gone,
    /// It keeps its state to itself.
    #[error("Backend does not offer VHOST_USER_PROTOCOL_F_DEVICE_STATE")]
    NoDeviceState,
    /// Its state did not come, or was not taken, in time or at all.
    #[error("Backend's state did not get through the pipe")]
    Transfer(#[source] io::Error),
    /// Its state is longer than anything it may be asked to remember.
    #[error("Backend's state is longer than {limit} bytes")]
    StateTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Guest RAM cannot be shared with another process.
    #[error("Guest RAM is private to this process, expected shared memory behind a descriptor")]
    PrivateMemory(#[source] vhost::Error),
    /// A ring does not lie in one piece.
    #[error("Queue {queue}: a ring at {address:#x} crosses regions of guest RAM")]
    Ring {
        /// Index of the queue.
        queue: u16,
        /// Guest address of the ring.
        address: u64,
        /// What the memory code found.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
}
