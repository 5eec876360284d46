//! The unsafe side of disk I/O: guest memory as iovecs, io_uring, and one block device call.

mod buffers;
mod ring;

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

pub(super) use buffers::BufferTable;
pub(super) use ring::{Ring, RingOp};

/// `_IO(0x12, 119)`: discards a range of a block device.
const BLKDISCARD: libc::c_ulong = 0x1277;

/// Tells a block device that these bytes are not needed any more.
pub(super) fn block_discard(device: &impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    let range = [offset, len];
    // SAFETY: BLKDISCARD reads two u64 through its pointer; `range` holds two and outlives the
    // call. On a descriptor that is no block device it fails with ENOTTY.
    let result =
        unsafe { libc::ioctl(device.as_fd().as_raw_fd(), BLKDISCARD as _, range.as_ptr()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Makes a range of `target` share the blocks that the same range of `source` has.
pub(super) fn clone_range(
    source: &impl AsFd,
    target: &impl AsFd,
    range: Range<u64>,
) -> io::Result<()> {
    let what = libc::file_clone_range {
        src_fd: source.as_fd().as_raw_fd().into(),
        src_offset: range.start,
        // A length of 0 would mean everything up to the end.
        src_length: range.end.saturating_sub(range.start).max(1),
        dest_offset: range.start,
    };
    // SAFETY: FICLONERANGE reads one file_clone_range through its pointer; `what` is one and
    // outlives the call. Both descriptors are borrowed, so they stay open until it returns.
    let result = unsafe {
        libc::ioctl(
            target.as_fd().as_raw_fd(),
            libc::FICLONERANGE as _,
            &raw const what,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
