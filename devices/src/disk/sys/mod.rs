//! The unsafe side of disk I/O: guest memory as iovecs, io_uring, and one block device call.

mod buffers;
mod ring;

use std::io;
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
