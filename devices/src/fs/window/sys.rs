//! The addresses of a window in this process, and what is mapped there.
#![expect(
    unsafe_code,
    reason = "Files that are mapped over one another have no safe interface"
)]

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use super::CELL_BYTES;

/// Addresses that belong to a window, all of them readable and none writable: files where they
/// are mapped, zeroes elsewhere. Nobody in this process ever reads there, so that a file which is
/// truncated under its mapping cannot end it; a guest does.
#[derive(Debug)]
pub(super) struct Reservation {
    whole: NonNull<c_void>,
    whole_bytes: usize,
    start: usize,
    bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and nobody dereferences it.
unsafe impl Send for Reservation {}
// SAFETY: as above; what is mapped is exchanged by the host's kernel, in one step.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves `bytes`, a whole number of cells, at a multiple of a cell, so that host and guest
    /// addresses are congruent and KVM can map huge pages.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let cell = usize::try_from(CELL_BYTES).unwrap_or(usize::MAX);
        let whole_bytes = bytes.checked_add(cell).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the host chooses the place, so nothing else is mapped over.
        let whole =
            unsafe { mmap_anonymous(ptr::null_mut(), whole_bytes, ProtFlags::READ, flags) }?;
        let whole = NonNull::new(whole).ok_or(io::ErrorKind::OutOfMemory)?;
        let reserved = Self {
            whole,
            whole_bytes,
            // The excess of one cell holds the shift to the next multiple.
            start: whole.addr().get().next_multiple_of(cell),
            bytes,
        };
        reserved.keep_out_of_dumps(0..bytes);
        Ok(reserved)
    }

    /// The addresses.
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.start.saturating_add(self.bytes)
    }

    /// Maps `file` from `offset` on at `place`, relative to the window, in the place of what is there.
    pub(super) fn put(
        &self,
        place: Range<usize>,
        file: BorrowedFd<'_>,
        offset: u64,
    ) -> io::Result<()> {
        let at = self.at(&place)?;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: `at` checked that the range lies in the reservation, which is this value's alone
        // and which nobody in this process refers to: KVM alone looks at what is mapped there.
        unsafe { mmap(at, place.len(), ProtFlags::READ, flags, file, offset) }?;
        self.keep_out_of_dumps(place);
        Ok(())
    }

    /// Puts zeroes at `place`, in the place of what is there.
    pub(super) fn blank(&self, place: Range<usize>) -> io::Result<()> {
        let at = self.at(&place)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: as in `put`.
        unsafe { mmap_anonymous(at, place.len(), ProtFlags::READ, flags) }?;
        self.keep_out_of_dumps(place);
        Ok(())
    }

    /// The address of `place`, which has to lie in the reservation.
    fn at(&self, place: &Range<usize>) -> io::Result<*mut c_void> {
        if place.is_empty() || place.end > self.bytes {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let address = self.start.saturating_add(place.start);
        Ok(self.whole.as_ptr().with_addr(address))
    }

    fn keep_out_of_dumps(&self, place: Range<usize>) {
        let Ok(at) = self.at(&place) else {
            return;
        };
        // SAFETY: the range lies in the reservation, and the advice changes nothing that is mapped.
        let advised = unsafe { madvise(at, place.len(), Advice::LinuxDontDump) };
        if let Err(error) = advised {
            tracing::debug!(%error, "Host refused advice on the window of a share");
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: `new` made the mapping for this value alone; what `put` and `blank` mapped over it
        // lies within. The machine holds the window for as long as its vCPUs run.
        let unmapped = unsafe { munmap(self.whole.as_ptr(), self.whole_bytes) };
        if let Err(error) = unmapped {
            tracing::error!(%error, "The window of a share was not unmapped");
        }
    }
}
