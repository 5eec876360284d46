//! Advice to the kernel on mappings.
#![allow(unsafe_code)]

use std::io;

use rustix::mm::{Advice, madvise};
use vm_memory::MmapRegion;

/// Gives advice that neither changes nor discards what is mapped; any other is refused.
///
/// # Errors
/// What the host says, or `InvalidInput` for advice of another kind.
pub(crate) fn advise(mapping: &MmapRegion, advice: Advice) -> io::Result<()> {
    match advice {
        Advice::LinuxHugepage | Advice::LinuxDontDump | Advice::LinuxPopulateRead => {}
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    }
    // SAFETY: `mapping` owns exactly this range for the duration of the call, and no advice that
    // got here changes or discards its contents.
    let advised = unsafe { madvise(mapping.as_ptr().cast(), mapping.size(), advice) };
    Ok(advised?)
}
