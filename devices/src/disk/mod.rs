//! Disk images as bytes: reads, writes, flushes and holes on an open file, with no virtio in it.
//!
//! [`RawDisk`] is the image: its size, its access mode and the ways to give blocks back.
//! A [`DiskEngine`] moves bytes between the image and guest memory, many requests at a time:
//! [`SyncEngine`] with system calls on the caller's thread, [`UringEngine`] through io_uring.
//! [`PreservingEngine`] stands in front of either, for when the image is being copied as it was, and
//! [`Gate`] keeps requests off the image for a moment.
//!
//! ```text
//! submit ─▶ commit ─▶ (completion_event fires) ─▶ reap
//!                 └──────── wait ────────────▶ reap      while in_flight() > 0: the drain
//! ```
//!
//! Not here: image formats (raw only, never detected), descriptor chains, sectors, threads.

mod gate;
mod io_sync;
mod io_uring;
mod preserve;
mod raw;
#[expect(
    unsafe_code,
    reason = "guest buffers are handed to the kernel as iovecs"
)]
mod sys;
#[cfg(test)]
mod tests;

use std::io;

use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

pub(crate) use gate::Look;
pub use gate::{Closed, Gate, GateError};
pub use io_sync::SyncEngine;
pub use io_uring::UringEngine;
pub use preserve::{
    CLUSTER_BYTES, Method, Preservation, PreserveError, PreservingEngine, Progress,
};
pub(crate) use raw::SECTOR_BYTES;
pub use raw::{Backing, RawDisk, RawDiskError};

/// A piece of guest memory, in bytes. Not checked yet: guests choose these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts.
    pub addr: GuestAddress,
    /// Its length in bytes.
    pub len: u32,
}

/// What happens to an [`Extent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentAction {
    /// Its content is not needed any more; a backing that cannot free it keeps it.
    Discard,
    /// It reads as zeroes from then on, and its space is freed where the backing can.
    Punch,
    /// It reads as zeroes from then on, and its space stays allocated.
    Zero,
}

/// A range of the image without data, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it starts.
    pub offset: u64,
    /// Its length.
    pub len: u64,
    /// What happens to it.
    pub action: ExtentAction,
}

/// One request; the caller has checked its range against [`RawDisk::size`].
#[derive(Debug, Clone, Copy)]
pub enum DiskRequest<'a> {
    /// Fills the segments from the image, starting at this byte.
    Read {
        /// First byte of the image.
        offset: u64,
        /// Guest memory to fill.
        segments: &'a [Segment],
    },
    /// Writes the segments to the image, starting at this byte.
    Write {
        /// First byte of the image.
        offset: u64,
        /// Guest memory to take.
        segments: &'a [Segment],
    },
    /// Makes every write submitted earlier survive a power cut.
    Flush,
    /// Discards or zeroes these extents.
    Clear {
        /// The extents, in any order.
        extents: &'a [Extent],
    },
}

/// When a completed write survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once a later flush completed.
    OnFlush,
    /// At once.
    EveryWrite,
}

/// A finished request.
#[derive(Debug)]
pub struct Completion {
    /// The tag it was submitted with, free again.
    pub tag: u16,
    /// What the host said.
    pub result: io::Result<()>,
}

/// Moves bytes between an image and guest memory.
///
/// Requests carry a tag below the number the engine was made for, free again once its completion
/// is reaped. They may complete in any order, except that a flush comes after every write
/// submitted before it. Dropping an engine waits for whatever the kernel still works on.
pub trait DiskEngine: Send {
    /// Its name in logs, such as `io_uring`.
    fn name(&self) -> &'static str;

    /// Fires (counts up, edge-triggered is enough) when [`DiskEngine::reap`] has something to say.
    /// Absent when everything completes within `submit`.
    fn completion_event(&self) -> Option<&EventFd>;

    /// Accepts one request. It may start only with the next [`DiskEngine::commit`].
    ///
    /// # Errors
    /// When the tag is taken or too high, or a segment lies outside guest memory. Nothing was
    /// started then.
    fn submit(&mut self, tag: u16, request: DiskRequest<'_>) -> Result<(), SubmitError>;

    /// Starts what was submitted, in one go.
    ///
    /// # Errors
    /// When the host refuses for good; the engine is of no use any more.
    fn commit(&mut self) -> io::Result<()>;

    /// Appends the requests that finished to `done`. Never blocks for the disk.
    fn reap(&mut self, done: &mut Vec<Completion>);

    /// Blocks until at least one request can be reaped; returns at once when none is in flight.
    ///
    /// # Errors
    /// When the host refuses for good.
    fn wait(&mut self) -> io::Result<()>;

    /// Requests submitted and not yet reaped.
    fn in_flight(&self) -> usize;
}

/// Why a request was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The tag belongs to a request in flight.
    #[error("Tag {tag} is in flight")]
    Busy {
        /// The tag.
        tag: u16,
    },
    /// The tag is beyond what the engine was made for.
    #[error("Tag {tag} is too high, the engine has {tags}")]
    NoSuchTag {
        /// The tag.
        tag: u16,
        /// Number of tags.
        tags: usize,
    },
    /// A segment lies outside guest memory.
    #[error("Request {tag}: buffer outside guest memory")]
    Memory {
        /// The request's tag.
        tag: u16,
        /// What the memory code found.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
}
