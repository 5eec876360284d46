//! Copies a file of the cache into guest memory through a mapping of it: the host's `read` copies
//! page by page, which takes twice as long for a kernel.
//!
//! Only for files that nobody cuts short: touching a mapping beyond the end of its file is a signal,
//! not an error. The cache's files are ours alone and never change once they have their name. That
//! the disk delivers them is asked first, when the mapping is filled.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use devices::device::Memory;
use rustix::mm::Advice;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, MmapRegion, VolatileMemory};

use super::blob::Part;
use crate::memory::advise;

/// Bytes mapped at a time: enough to make the mapping's own cost small, few enough for two threads
/// to end at about the same time.
const WINDOW: u64 = 4 << 20;
/// Offsets of mappings are multiples of this.
const PAGE: u64 = 4096;

/// Copies parts of `file` to guest memory. A second thread takes every other window or so: most of
/// the time goes into filling fresh pages, which two processors do twice as fast.
///
/// # Errors
/// When the file cannot be mapped or read, or guest memory is missing; some of the parts may have
/// been copied then.
pub(super) fn copy_parts(file: &File, parts: &[Part], memory: &Memory) -> io::Result<()> {
    let windows: Vec<Part> = parts.iter().flat_map(windows).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(window) = windows.get(next.fetch_add(1, Ordering::Relaxed)) {
            copy_window(file, window, memory)?;
        }
        Ok(())
    };
    if windows.len() < 2 {
        return work();
    }
    thread::scope(|scope| {
        let second = thread::Builder::new().name("loader.1".to_owned());
        // Without it, this thread copies everything.
        let second = second.spawn_scoped(scope, work);
        let first = work();
        let second = second.map_or(Ok(()), |thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(io::Error::other("The second loader panicked")))
        });
        first.and(second)
    })
}

/// A part in pieces that are mapped one by one.
fn windows(part: &Part) -> impl Iterator<Item = Part> {
    let Part {
        offset,
        length,
        address,
    } = *part;
    let mut done = 0;
    std::iter::from_fn(move || {
        let length = WINDOW.min(length.saturating_sub(done));
        let window = Part {
            offset: offset.saturating_add(done),
            length,
            address: address.saturating_add(done),
        };
        done = done.saturating_add(length);
        (length > 0).then_some(window)
    })
}

fn copy_window(file: &File, part: &Part, memory: &Memory) -> io::Result<()> {
    let end = part.offset.saturating_add(part.length);
    Window::map(file, part.offset..end)?.copy_to(memory, part.address)
}

/// A mapped range of a file.
struct Window {
    mapping: MmapRegion<()>,
    /// Where the range starts in the mapping.
    skip: usize,
    length: usize,
}

impl Window {
    fn map(file: &File, range: Range<u64>) -> io::Result<Self> {
        let skip = range.start % PAGE;
        let length = range.end.saturating_sub(range.start);
        let size = usize::try_from(length.saturating_add(skip)).map_err(io::Error::other)?;
        let from = FileOffset::new(file.try_clone()?, range.start.saturating_sub(skip));
        let mapping = MmapRegion::build(Some(from), size, libc::PROT_READ, libc::MAP_PRIVATE)
            .map_err(io::Error::other)?;
        // All of it is in memory and mapped from here on, or this fails as a read would.
        advise(&mapping, 0, Advice::LinuxPopulateRead)?;
        Ok(Self {
            mapping,
            skip: usize::try_from(skip).map_err(io::Error::other)?,
            length: usize::try_from(length).map_err(io::Error::other)?,
        })
    }

    fn copy_to(&self, memory: &Memory, address: u64) -> io::Result<()> {
        let mut from = self.skip;
        for target in memory.get_slices(GuestAddress(address), self.length) {
            let target = target.map_err(io::Error::other)?;
            let bytes = target.len();
            let source = self.mapping.get_slice(from, bytes);
            source
                .map_err(io::Error::other)?
                .copy_to_volatile_slice(target);
            from = from.saturating_add(bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn part_of_several_windows_arrives_whole_at_any_offset() {
        let file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..=250_u8).cycle().take(20 << 20).collect();
        file.write_all_at(&content, 0).unwrap();
        let memory = Memory::from_ranges(&[
            (GuestAddress(0), 8 << 20),
            (GuestAddress(8 << 20), 24 << 20),
        ]);
        let memory = memory.unwrap();
        let part = Part {
            offset: 4099,
            length: (17 << 20) + 5,
            address: 12345,
        };
        copy_parts(&file, &[part], &memory).unwrap();
        let mut found = vec![0; 17 << 20 | 5];
        memory
            .read_slice(&mut found, GuestAddress(part.address))
            .unwrap();
        assert!(found == content[4099..4099 + found.len()]);
    }

    #[test]
    fn file_that_ends_early_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let memory = Memory::from_ranges(&[(GuestAddress(0), 8 << 20)]).unwrap();
        let part = Part {
            offset: 0,
            length: 2 << 20,
            address: 0,
        };
        assert!(copy_parts(&file, &[part], &memory).is_err());
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 20).unwrap();
        let memory = Memory::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
        let part = Part {
            offset: 0,
            length: 4 << 20,
            address: 0,
        };
        assert!(copy_parts(&file, &[part], &memory).is_err());
    }
}
