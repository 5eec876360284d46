//! Giving mapped pages back.
#![allow(unsafe_code)]

use std::io;

use rustix::mm::{Advice, madvise};

/// Unmaps the pages of a range of the program's own text. They come back from the file.
///
/// # Errors
/// When the range is not one that is mapped.
pub(super) fn release_clean(start: usize, length: usize) -> io::Result<()> {
    let address = std::ptr::without_provenance_mut(start);
    // SAFETY: the caller found the range in this process's list of mappings as text of a file that
    // is mapped without write access, and slotvmm unmaps no text: its pages equal the file's, so
    // whoever runs or reads them next finds what was there.
    unsafe { madvise(address, length, Advice::LinuxDontNeed)? };
    Ok(())
}
