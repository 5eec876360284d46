//! Guest buffers of the requests in flight, as iovecs on the guest's own memory.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use vm_memory::{GuestMemory, GuestMemoryError, Permissions};

use crate::device::Memory;
use crate::disk::Segment;

/// Most iovecs the kernel takes in one call (`UIO_MAXIOV`); longer requests take several.
const MAX_IOVECS: usize = 1024;

/// One row of iovecs per tag.
///
/// Invariant: every iovec lies inside a region of `memory`, which the table owns a share of, so
/// its mapping stays until the table is dropped. Nothing is borrowed from it as a Rust reference:
/// the guest changes these bytes at any time.
pub(crate) struct BufferTable {
    memory: Memory,
    rows: Vec<Row>,
}

#[derive(Default)]
struct Row {
    iovecs: Vec<libc::iovec>,
    first: usize,
}

// SAFETY: the raw pointers in the rows point into mappings that `memory` keeps alive on whatever
// thread the table is, and no thread-bound state hangs on them.
unsafe impl Send for BufferTable {}

impl BufferTable {
    pub(crate) fn new(memory: Memory, tags: u16) -> Self {
        Self {
            memory,
            rows: (0..tags).map(|_| Row::default()).collect(),
        }
    }

    /// Replaces a row by these segments; on an error it is empty. Unknown tags are ignored.
    pub(crate) fn fill(&mut self, tag: u16, segments: &[Segment]) -> Result<(), GuestMemoryError> {
        let Some(row) = self.rows.get_mut(usize::from(tag)) else {
            return Ok(());
        };
        row.first = 0;
        row.iovecs.clear();
        let filled = push_all(&self.memory, &mut row.iovecs, segments);
        if filled.is_err() {
            row.iovecs.clear();
        }
        filled
    }

    /// Whether every byte of the row has been moved.
    pub(crate) fn is_done(&self, tag: u16) -> bool {
        self.row(tag).is_empty()
    }

    /// Drops the first `bytes` bytes of a row, which were moved.
    pub(crate) fn advance(&mut self, tag: u16, mut bytes: usize) {
        let Some(row) = self.rows.get_mut(usize::from(tag)) else {
            return;
        };
        while let Some(iovec) = row.iovecs.get_mut(row.first) {
            if bytes < iovec.iov_len {
                iovec.iov_base = iovec.iov_base.wrapping_byte_add(bytes);
                iovec.iov_len = iovec.iov_len.saturating_sub(bytes);
                return;
            }
            bytes = bytes.saturating_sub(iovec.iov_len);
            row.first = row.first.saturating_add(1);
        }
    }

    /// What remains of a row, cut to what one call takes.
    pub(super) fn row(&self, tag: u16) -> &[libc::iovec] {
        let rest = self
            .rows
            .get(usize::from(tag))
            .and_then(|row| row.iovecs.get(row.first..));
        let rest = rest.unwrap_or_default();
        rest.get(..MAX_IOVECS).unwrap_or(rest)
    }

    /// `preadv2` into what remains of a row; returns the bytes read, 0 at the end of the file.
    pub(crate) fn read_at(
        &self,
        tag: u16,
        file: &impl AsFd,
        offset: u64,
        flags: i32,
    ) -> io::Result<usize> {
        let (iovecs, count, offset) = self.call(tag, offset)?;
        // SAFETY: `iovecs` is a live slice of `count` iovecs, and by the table's invariant each
        // points into guest memory that is mapped for as long as `self` lives.
        let read = unsafe { libc::preadv2(file.as_fd().as_raw_fd(), iovecs, count, offset, flags) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    /// `pwritev2` of what remains of a row; returns the bytes written.
    pub(crate) fn write_at(
        &self,
        tag: u16,
        file: &impl AsFd,
        offset: u64,
        flags: i32,
    ) -> io::Result<usize> {
        let (iovecs, count, offset) = self.call(tag, offset)?;
        // SAFETY: as for `read_at`; the kernel only reads these buffers.
        let written =
            unsafe { libc::pwritev2(file.as_fd().as_raw_fd(), iovecs, count, offset, flags) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }

    fn call(
        &self,
        tag: u16,
        offset: u64,
    ) -> io::Result<(*const libc::iovec, libc::c_int, libc::off_t)> {
        let row = self.row(tag);
        let invalid = |_| io::Error::from_raw_os_error(libc::EINVAL);
        let count = libc::c_int::try_from(row.len()).map_err(invalid)?;
        Ok((
            row.as_ptr(),
            count,
            libc::off_t::try_from(offset).map_err(invalid)?,
        ))
    }
}

fn push_all(
    memory: &Memory,
    iovecs: &mut Vec<libc::iovec>,
    segments: &[Segment],
) -> Result<(), GuestMemoryError> {
    for segment in segments {
        // The bounds check that counts: a segment that leaves guest memory ends in an error.
        let slices = GuestMemory::get_slices(
            memory,
            segment.addr,
            segment.len as usize,
            Permissions::ReadWrite,
        )?;
        for slice in slices {
            let slice = slice?;
            iovecs.push(libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            });
        }
    }
    Ok(())
}
