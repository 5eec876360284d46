//! Guest RAM.

mod shared;
mod sys;

use std::io;
use std::sync::Arc;

use devices::device::Memory;
use rustix::mm::Advice;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, MmapRegion,
};

pub(crate) use self::sys::advise;
pub use crate::arch::layout;

/// Size of a huge page, and the alignment of guest RAM in this process.
pub const HUGE_PAGE: usize = 2 << 20;

/// How often another place is looked for: gaps may be too small, and other threads map memory too.
const PLACEMENTS: usize = 16;

/// Why there is no guest RAM.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The size is out of range.
    #[error(
        "Guest RAM of {mib} MiB is out of range, expected {} to {} MiB",
        layout::MIN_RAM_MIB,
        layout::MAX_RAM_MIB
    )]
    Size {
        /// MiB asked for.
        mib: u64,
    },
    /// The host does not give that much address space.
    #[error("Failed to map {mib} MiB of guest RAM; is the host's memory overcommit limit reached?")]
    Map {
        /// MiB asked for.
        mib: u64,
        /// What the host said.
        #[source]
        source: MmapRegionError,
    },
    /// The host gives no memory that can be shared.
    #[error("Failed to {action} a memfd for guest RAM that a share's backend can map")]
    Shared {
        /// What was being done to it.
        action: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Two ranges overlap: a mistake in the memory map.
    #[error("Guest RAM ranges overlap")]
    Ranges(#[source] vm_memory::GuestRegionCollectionError),
}

/// What guest RAM is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Private anonymous memory: the fastest, and nobody else's.
    Private,
    /// A memfd that other processes can be given: they serve queues in it.
    Shared,
}

/// Maps `mib` MiB of memory: aligned for huge pages, absent from core dumps, untouched until the
/// guest or a loader writes to it.
///
/// # Errors
/// When the size is out of range or the host refuses.
pub fn create(mib: u64, backing: Backing) -> Result<Memory, MemoryError> {
    if !(layout::MIN_RAM_MIB..=layout::MAX_RAM_MIB).contains(&mib) {
        return Err(MemoryError::Size { mib });
    }
    let file = match backing {
        Backing::Private => None,
        Backing::Shared => Some(Arc::new(shared::file(mib << 20)?)),
    };
    let mut regions = Vec::new();
    let mut offset = 0;
    for (start, length) in layout::ram_ranges(mib << 20) {
        let bytes = usize::try_from(length).map_err(|_| MemoryError::Size { mib })?;
        let map = || match &file {
            None => MmapRegion::new(bytes),
            Some(file) => MmapRegion::from_file(FileOffset::from_arc(file.clone(), offset), bytes),
        };
        let mapping = aligned(map).map_err(|source| MemoryError::Map { mib, source })?;
        // A host without transparent huge pages refuses, and the machine works all the same.
        for (from, advice) in [
            (huge_from(start), Advice::LinuxHugepage),
            (0, Advice::LinuxDontDump),
        ] {
            if let Err(error) = advise(&mapping, from, advice) {
                tracing::debug!(%error, ?advice, "Host refused advice on guest RAM");
            }
        }
        let region =
            GuestRegionMmap::new(mapping, GuestAddress(start)).ok_or(MemoryError::Size { mib })?;
        regions.push(region);
        offset += length;
    }
    Memory::from_regions(regions).map_err(MemoryError::Ranges)
}

/// From which byte of the RAM at `start` huge pages pay. Below 2 MiB only some tables of ours are
/// written and little is used by the guest: to clear a huge page there takes longer than the pages.
fn huge_from(start: u64) -> usize {
    if start == 0 { HUGE_PAGE } else { 0 }
}

/// A mapping whose address is a multiple of [`HUGE_PAGE`] wherever the host allows it; newer
/// kernels align some by themselves. Guest and host address are then congruent, which lets KVM map
/// whole huge pages.
fn aligned(
    map: impl Fn() -> Result<MmapRegion, MmapRegionError>,
) -> Result<MmapRegion, MmapRegionError> {
    let mut mapping = map()?;
    let mut above = Vec::new();
    for _ in 0..PLACEMENTS {
        let start = mapping.as_ptr().addr();
        if start.is_multiple_of(HUGE_PAGE) {
            break;
        }
        // The kernel maps at the upper end of a gap. So the next one comes below this one and a pad
        // that makes up the difference, unless another thread maps something there at that moment.
        let excess = start.wrapping_sub(mapping.size()) % HUGE_PAGE;
        let pad = sys::Pad::new(start - excess, excess);
        above.push((mapping, pad));
        mapping = map()?;
    }
    Ok(mapping)
}

/// Total bytes of RAM.
pub fn size(memory: &Memory) -> u64 {
    memory.iter().map(|region| region.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    fn is_aligned(memory: &Memory) -> bool {
        let mut regions = memory.iter();
        regions.all(|region| region.as_ptr().addr().is_multiple_of(HUGE_PAGE))
    }

    #[test]
    fn ram_is_aligned_for_huge_pages_on_both_sides_of_the_hole() {
        for backing in [Backing::Private, Backing::Shared] {
            let memory = create(3584, backing).unwrap();
            assert_eq!(size(&memory), 3584 << 20);
            assert!(is_aligned(&memory), "{backing:?}");
        }
    }

    #[test]
    fn ram_is_aligned_where_the_address_space_has_small_gaps() {
        let mappings: Vec<_> = (0..64)
            .map(|number| (number, MmapRegion::<()>::new(HUGE_PAGE - 4096).unwrap()))
            .collect();
        let _kept: Vec<_> = mappings
            .into_iter()
            .filter(|(number, _)| number % 2 == 0)
            .collect();
        for backing in [Backing::Private, Backing::Shared] {
            assert!(is_aligned(&create(3584, backing).unwrap()), "{backing:?}");
        }
    }

    #[test]
    fn ram_is_aligned_while_other_threads_map_memory() {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for pages in 1..4 {
                let done = &done;
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        drop(MmapRegion::<()>::new(pages << 12).unwrap());
                    }
                });
            }
            let misplaced = (0..200)
                .flat_map(|_| [Backing::Private, Backing::Shared])
                .filter(|&backing| !is_aligned(&create(3584, backing).unwrap()))
                .count();
            done.store(true, Ordering::Relaxed);
            assert_eq!(misplaced, 0);
        });
    }

    #[test]
    fn shared_ram_is_one_file_without_gaps_that_nobody_can_resize() {
        let memory = create(3584, Backing::Shared).unwrap();
        let mut offset = 0;
        for region in memory.iter() {
            let file = region.file_offset().unwrap();
            assert_eq!(file.start(), offset);
            assert_eq!(file.file().metadata().unwrap().len(), 3584 << 20);
            assert!(file.file().set_len(4096).is_err(), "shrinking");
            assert!(file.file().set_len(4096 << 20).is_err(), "growing");
            offset += region.len();
        }
        assert_eq!(offset, 3584 << 20);
    }

    #[test]
    fn private_ram_has_no_file() {
        let memory = create(256, Backing::Private).unwrap();
        assert!(memory.iter().all(|region| region.file_offset().is_none()));
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        assert!(matches!(
            create(31, Backing::Private),
            Err(MemoryError::Size { mib: 31 })
        ));
        assert!(matches!(
            create((1 << 20) + 1, Backing::Shared),
            Err(MemoryError::Size { .. })
        ));
    }
}
