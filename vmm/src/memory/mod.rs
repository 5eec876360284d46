//! Guest RAM.

mod sys;

use devices::device::Memory;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, MmapRegion};

pub use crate::arch::layout;

/// Size of a huge page, and the alignment of guest RAM in this process.
pub const HUGE_PAGE: usize = 2 << 20;

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
        source: vm_memory::mmap::MmapRegionError,
    },
    /// Two ranges overlap: a mistake in the memory map.
    #[error("Guest RAM ranges overlap")]
    Ranges(#[source] vm_memory::GuestRegionCollectionError),
}

/// Maps `mib` MiB of private anonymous memory: aligned for huge pages, absent from core dumps,
/// untouched until the guest or a loader writes to it.
///
/// # Errors
/// When the size is out of range or the host refuses.
pub fn create(mib: u64) -> Result<Memory, MemoryError> {
    if !(layout::MIN_RAM_MIB..=layout::MAX_RAM_MIB).contains(&mib) {
        return Err(MemoryError::Size { mib });
    }
    let mut regions = Vec::new();
    for (start, length) in layout::ram_ranges(mib << 20) {
        let length = usize::try_from(length).map_err(|_| MemoryError::Size { mib })?;
        let mapping = aligned(length).map_err(|source| MemoryError::Map { mib, source })?;
        sys::advise(&mapping);
        let region =
            GuestRegionMmap::new(mapping, GuestAddress(start)).ok_or(MemoryError::Size { mib })?;
        regions.push(region);
    }
    Memory::from_regions(regions).map_err(MemoryError::Ranges)
}

/// A mapping whose address is a multiple of [`HUGE_PAGE`] wherever the host allows it; newer
/// kernels align by themselves. Guest and host address are then congruent, which lets KVM map
/// whole huge pages.
fn aligned(length: usize) -> Result<MmapRegion, vm_memory::mmap::MmapRegionError> {
    let first = MmapRegion::new(length)?;
    let excess = first.as_ptr().addr() % HUGE_PAGE;
    if excess == 0 {
        return Ok(first);
    }
    drop(first);
    // Mappings grow downwards: a pad above the next one shifts it to the boundary.
    let _pad = MmapRegion::<()>::new(excess)?;
    MmapRegion::new(length)
}

/// Total bytes of RAM.
pub fn size(memory: &Memory) -> u64 {
    memory.iter().map(|region| region.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_is_aligned_for_huge_pages_on_both_sides_of_the_hole() {
        let memory = create(3584).unwrap();
        assert_eq!(size(&memory), 3584 << 20);
        for region in memory.iter() {
            assert_eq!(region.get_mmap().as_ptr().addr() % HUGE_PAGE, 0);
        }
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        assert!(matches!(create(31), Err(MemoryError::Size { mib: 31 })));
        assert!(matches!(
            create((1 << 20) + 1),
            Err(MemoryError::Size { .. })
        ));
    }
}
