//! Advice to the kernel on mappings.
#![allow(unsafe_code)]

use std::io;

use rustix::mm::{Advice, madvise};
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
