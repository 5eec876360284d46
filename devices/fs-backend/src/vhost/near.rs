//! Guest memory, quick to reach.

use std::iter::FusedIterator;

use vm_memory::guest_memory::{GuestMemoryBackendSliceIterator, GuestMemorySliceIterator, Result};
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion as _,
    Permissions, VolatileSlice,
};

/// Guest memory. A range within the region that is near, as nearly all are, is found without looking
/// for its region; one within another region, without the bookkeeping for those that are not: a request
/// has about twenty.
#[derive(Debug)]
pub(super) struct Near<'m> {
    memory: &'m GuestMemoryMmap,
    region: Option<(GuestAddress, VolatileSlice<'m>)>,
}

impl<'m> Near<'m> {
    /// All of `memory`. The region with `address` is near.
    pub(super) fn new(memory: &'m GuestMemoryMmap, address: GuestAddress) -> Self {
        let region = memory.find_region(address);
        let region =
            region.and_then(|region| Some((region.start_addr(), region.as_volatile_slice().ok()?)));
        Self { memory, region }
    }

    fn slice(&self, address: GuestAddress, count: usize) -> Option<VolatileSlice<'m>> {
        let (start, region) = self.region.as_ref()?;
        let offset = address.0.checked_sub(start.0)?;
        region.subslice(usize::try_from(offset).ok()?, count).ok()
    }
}

impl GuestMemory for Near<'_> {
    type PhysicalMemory = GuestMemoryMmap;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        GuestMemory::check_range(self.memory, addr, count, access)
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        _access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, ()>> {
        let near = self.slice(addr, count);
        let one = near.or_else(|| self.memory.get_slice(addr, count).ok());
        Ok(match one {
            Some(slice) if count > 0 => Slices::One(Some(slice)),
            // Several regions, a hole, or nothing.
            _ => Slices::Several(GuestMemoryBackend::get_slices(self.memory, addr, count)),
        })
    }

    fn physical_memory(&self) -> Option<&GuestMemoryMmap> {
        Some(self.memory)
    }
}

/// What a range consists of.
enum Slices<'a> {
    /// All of it, until that was given.
    One(Option<VolatileSlice<'a>>),
    /// As much as there is before an error.
    Several(GuestMemoryBackendSliceIterator<'a, GuestMemoryMmap>),
}

impl<'a> Iterator for Slices<'a> {
    type Item = Result<VolatileSlice<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::One(slice) => slice.take().map(Ok),
            Self::Several(slices) => slices.next(),
        }
    }
}

impl FusedIterator for Slices<'_> {}

impl<'a> GuestMemorySliceIterator<'a, ()> for Slices<'a> {
    fn stop_on_error(mut self) -> Result<impl Iterator<Item = VolatileSlice<'a>>> {
        let first = self.next().transpose()?;
        Ok(first.into_iter().chain(self.map_while(Result::ok)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::{Bytes as _, GuestAddressSpace as _, GuestMemoryAtomic};

    use super::*;

    /// Two regions side by side, and one behind a hole.
    const REGIONS: [(GuestAddress, usize); 3] = [
        (GuestAddress(0x1000), 0x1000),
        (GuestAddress(0x2000), 0x1000),
        (GuestAddress(0x4000), 0x1000),
    ];

    fn filled() -> GuestMemoryAtomic<GuestMemoryMmap> {
        let memory = GuestMemoryMmap::from_ranges(&REGIONS).unwrap();
        for (start, len) in REGIONS {
            let bytes: Vec<u8> = (0..len)
                .map(|at| u8::try_from(at / 7 % 251).unwrap())
                .collect();
            memory.write_slice(&bytes, start).unwrap();
        }
        GuestMemoryAtomic::new(memory)
    }

    /// What the slices of a range are, up to an error.
    fn shape(memory: &impl GuestMemory, addr: GuestAddress, len: usize) -> Vec<Option<usize>> {
        let slices = memory.get_slices(addr, len, Permissions::Read).unwrap();
        slices
            .map(|slice| slice.ok().map(|slice| slice.len()))
            .collect()
    }

    proptest! {
        #[test]
        fn ranges_are_what_they_are_without_the_short_way(
            addr in 0_u64..0x6000,
            len in 0_usize..0x3000,
            around in 0_u64..0x6000,
        ) {
            let atomic = filled();
            let (addr, far) = (GuestAddress(addr), &*atomic.memory());
            let near = Near::new(far, GuestAddress(around));
            prop_assert_eq!(shape(&near, addr, len), shape(far, addr, len));
            let (mut quick, mut slow) = (vec![0; len], vec![0; len]);
            prop_assert_eq!(near.read(&mut quick, addr).ok(), far.read(&mut slow, addr).ok());
            prop_assert_eq!(quick, slow);
            prop_assert_eq!(near.check_range(addr, len, Permissions::Read), GuestMemory::check_range(far, addr, len, Permissions::Read));
        }
    }
}
