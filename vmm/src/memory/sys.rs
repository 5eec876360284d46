//! Advice to the kernel on mappings, and where it puts them.
#![allow(unsafe_code)]

use std::{io, ptr};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use vm_memory::MmapRegion;

/// Gives advice that neither changes nor discards what is mapped, on everything from the byte `from`,
/// a multiple of the page size; any other is refused.
///
/// # Errors
/// What the host says, or `InvalidInput` for advice of another kind, or from behind the end.
pub(crate) fn advise(mapping: &MmapRegion, from: usize, advice: Advice) -> io::Result<()> {
    match advice {
        Advice::LinuxHugepage | Advice::LinuxDontDump => {}
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    }
    let length = mapping.size().checked_sub(from);
    let length = length.ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: `mapping` owns this range, from a byte within it or its end to its end, for the duration
    // of the call, and no advice that got here changes or discards its contents.
    let advised = unsafe { madvise(mapping.as_ptr().add(from).cast(), length, advice) };
    Ok(advised?)
}

/// Addresses that nothing else of the process is mapped to, until this is dropped.
pub(super) struct Pad {
    start: *mut std::ffi::c_void,
    bytes: usize,
}

impl Pad {
    /// Takes `bytes` from `address` on, both multiples of the page size.
    ///
    /// # Errors
    /// When it is no byte, something is mapped there, or the host has no more mappings for this process.
    pub(super) fn new(address: usize, bytes: usize) -> io::Result<Self> {
        let wanted = ptr::without_provenance_mut(address);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
        // SAFETY: with FIXED_NOREPLACE the kernel maps only where nothing is mapped, and an older one
        // that does not know the flag takes the address for a hint: no mapping is replaced either way.
        let start = unsafe { mmap_anonymous(wanted, bytes, ProtFlags::empty(), flags) }?;
        Ok(Self { start, bytes })
    }
}

impl Drop for Pad {
    fn drop(&mut self) {
        // SAFETY: the range is the one that `new` mapped, it is unmapped once, and nothing can refer to
        // memory that can be neither read nor written.
        let unmapped = unsafe { munmap(self.start, self.bytes) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}
