//! Copies a file into guest memory by two threads: most of the time goes into clearing fresh pages and
//! filling them, which two processors do twice as fast.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use devices::device::Memory;
use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::blob::Part;
use super::sys;
use crate::memory::HUGE_PAGE;

/// Bytes that a thread copies before it looks for more. A huge page of the guest: two threads never
/// clear the same one.
const STRIDE: u64 = HUGE_PAGE as u64;

/// Copies parts of `file` to guest memory. A second thread takes every other stride or so.
///
/// # Errors
/// When the file cannot be read or ends early, or guest memory is missing; some of the parts may have
/// been copied then.
pub(super) fn copy_parts(file: &File, parts: &[Part], memory: &Memory) -> io::Result<()> {
    let strides: Vec<Part> = parts.iter().flat_map(strides).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(stride) = strides.get(next.fetch_add(1, Ordering::Relaxed)) {
            copy(file, stride, memory)?;
        }
        Ok(())
    };
    if strides.len() < 2 {
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

/// A part in pieces that end at the guest's huge pages.
fn strides(part: &Part) -> impl Iterator<Item = Part> {
    let Part {
        offset,
        length,
        address,
    } = *part;
    let mut done = 0;
    std::iter::from_fn(move || {
        let address = address.saturating_add(done);
        let to_boundary = STRIDE - address % STRIDE;
        let stride = Part {
            offset: offset.saturating_add(done),
            length: to_boundary.min(length.saturating_sub(done)),
            address,
        };
        done = done.saturating_add(stride.length);
        (stride.length > 0).then_some(stride)
    })
}

fn copy(file: &File, part: &Part, memory: &Memory) -> io::Result<()> {
    let length = usize::try_from(part.length).map_err(io::Error::other)?;
    let mut from = part.offset;
    for target in memory.get_slices(GuestAddress(part.address), length) {
        let mut target = target.map_err(io::Error::other)?;
        while !target.is_empty() {
            let read = sys::read_at(file, &target, from)?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            from = from.saturating_add(read as u64);
            target = target.offset(read).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn part_of_several_strides_arrives_whole_at_any_offset() {
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
