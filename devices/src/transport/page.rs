//! The page that a driver reads a device's registers from.

use std::sync::atomic::{AtomicU32, Ordering};

use super::registers as reg;

/// 32-bit words of a register page.
pub const PAGE_WORDS: usize = CONFIG_WORD + reg::CONFIG_BYTES / 4;

/// Index of the word at which the configuration space begins.
pub(super) const CONFIG_WORD: usize = 0x100 / 4;

const _: () =
    assert!(PAGE_WORDS as u64 * 4 == reg::PAGE_BYTES && CONFIG_WORD as u64 * 4 == reg::CONFIG);

/// Memory that holds what a driver reads of one device: registers and configuration space, in the
/// guest's byte order (little endian), at the offsets that [`registers`](super::registers) names.
///
/// The transport keeps it up to date and is the only one that writes to it, one write at a time.
/// The machine provides it. When it shows the same memory to the guest, read-only, a driver's reads
/// never reach the transport; else the transport answers them from here.
pub trait RegisterPage: Send + Sync {
    /// The page. An aligned read of a driver sees a word as it was before a store or after it.
    fn words(&self) -> &[AtomicU32; PAGE_WORDS];

    /// Replaces the whole page in one step: a driver that has read one new word reads no old one
    /// after it, in whatever order it reads. Slower than stores by far.
    fn replace(&self, image: &[u32; PAGE_WORDS]);
}

/// A page that nobody else sees.
#[derive(Debug)]
pub(super) struct OwnPage(Box<[AtomicU32; PAGE_WORDS]>);

impl Default for OwnPage {
    fn default() -> Self {
        Self(Box::new([const { AtomicU32::new(0) }; PAGE_WORDS]))
    }
}

impl RegisterPage for OwnPage {
    fn words(&self) -> &[AtomicU32; PAGE_WORDS] {
        &self.0
    }

    fn replace(&self, image: &[u32; PAGE_WORDS]) {
        // One step for drivers: the transport holds its lock, which their reads take.
        for (word, value) in self.0.iter().zip(image) {
            word.store(*value, Ordering::Release);
        }
    }
}
