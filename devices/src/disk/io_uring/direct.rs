//! Requests that are alone: a plain call first, the ring only when that would block.
//!
//! The page cache answers most of them. A plain call then costs what the ring costs for a read,
//! and several times less for a buffered write, which the kernel hands to a worker thread on
//! filesystems that cannot promise not to block (ext4). What would block goes to the ring, and
//! so do writes for a while after one that did block.

use std::io;
use std::time::{Duration, Instant};

use crate::disk::raw::{RawDisk, is_unsupported};
use crate::disk::sys::BufferTable;

/// A write that took longer was not just a copy to the page cache.
const SLOW_WRITE: Duration = Duration::from_millis(1);
/// Writes that go to the ring after a slow one, before the next is tried directly.
const WRITES_AFTER_SLOW: u32 = 256;

/// What is known of the image's filesystem.
#[derive(Debug)]
pub(super) struct Direct {
    /// Whether it tells that a read would block.
    nowait_reads: bool,
    /// Whether it tells that a write would block.
    nowait_writes: bool,
    /// Writes to put through the ring before one is tried directly again.
    skip_writes: u32,
}

impl Direct {
    /// Assumes the best until a call says otherwise.
    pub(super) fn new() -> Self {
        Self {
            nowait_reads: true,
            nowait_writes: true,
            skip_writes: 0,
        }
    }

    /// Reads what the page cache has into a tag's buffers; nothing when the ring has to do it.
    pub(super) fn read(
        &mut self,
        buffers: &BufferTable,
        disk: &RawDisk,
        (tag, offset): (u16, u64),
    ) -> Option<io::Result<usize>> {
        if !self.nowait_reads {
            return None;
        }
        let read = buffers.read_at(tag, disk, offset, libc::RWF_NOWAIT);
        unless_blocking(read, &mut self.nowait_reads)
    }

    /// Writes a tag's buffers to the page cache; nothing when the ring has to do it.
    pub(super) fn write(
        &mut self,
        buffers: &BufferTable,
        disk: &RawDisk,
        (tag, offset): (u16, u64),
    ) -> Option<io::Result<usize>> {
        if self.nowait_writes {
            let written = buffers.write_at(tag, disk, offset, libc::RWF_NOWAIT);
            return unless_blocking(written, &mut self.nowait_writes);
        }
        if let Some(left) = self.skip_writes.checked_sub(1) {
            self.skip_writes = left;
            return None;
        }
        let start = Instant::now();
        let written = buffers.write_at(tag, disk, offset, 0);
        if start.elapsed() > SLOW_WRITE {
            self.skip_writes = WRITES_AFTER_SLOW;
        }
        Some(written)
    }
}

/// A call with `RWF_NOWAIT`: nothing when it would have blocked or is not supported, which
/// `supported` then remembers.
fn unless_blocking(result: io::Result<usize>, supported: &mut bool) -> Option<io::Result<usize>> {
    match &result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) if is_unsupported(error) => {
            *supported = false;
            None
        }
        _ => Some(result),
    }
}
