//! Advice to the kernel on guest RAM.
#![allow(unsafe_code)]

use rustix::mm::{Advice, madvise};
use vm_memory::MmapRegion;

/// Asks for huge pages and keeps the range out of core dumps. Both are advice: a host without
/// transparent huge pages refuses, and the machine works all the same.
pub(super) fn advise(mapping: &MmapRegion) {
    for advice in [Advice::LinuxHugepage, Advice::LinuxDontDump] {
        // SAFETY: `mapping` owns exactly this range for the duration of the call, and neither
        // advice changes or discards its contents.
        let advised = unsafe { madvise(mapping.as_ptr().cast(), mapping.size(), advice) };
        if let Err(error) = advised {
            tracing::debug!(%error, ?advice, "host refused advice on guest RAM");
        }
    }
}
