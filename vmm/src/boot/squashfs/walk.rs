//! Walks the directories of an image before the squashfs crate does, to see how large a tree the
//! crate would build: it copies the whole path and the block list of every entry, and recurses
//! into directories, so that a small image could ask for any amount of memory or stack.
//!
//! The walk is lenient: what it does not understand, the crate will refuse.

use std::collections::HashSet;

use backhand::v4::inode::{Inode, InodeInner};
use backhand::{BackhandError, Squashfs};

/// Deepest nesting of directories; a Nix store has about twenty.
const MAX_DEPTH: usize = 128;
/// Most entries of all directories together.
const MAX_ENTRIES: u64 = 1 << 20;
/// Most bytes that all paths and block lists take together.
const MAX_BYTES: u64 = 256 << 20;
/// Bytes of a directory header: count, start, inode number.
const HEADER: usize = 12;
/// Bytes of a directory entry before its name: offset, inode delta, type, name length.
const ENTRY: usize = 8;
/// Bytes of an element of a block list.
const BLOCK: u64 = 4;

/// The tree would not fit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// What is left of the limits.
struct Budget {
    entries: u64,
    bytes: u64,
}

impl Budget {
    fn spend(&mut self, bytes: u64) -> Result<(), TooLarge> {
        self.entries = self.entries.checked_sub(1).ok_or(TooLarge)?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or(TooLarge)?;
        Ok(())
    }
}

/// Checks the tree of `image` against the limits.
pub(super) fn check(image: &Squashfs<'_>) -> Result<(), TooLarge> {
    let mut budget = Budget {
        entries: MAX_ENTRIES,
        bytes: MAX_BYTES,
    };
    let mut visited = HashSet::new();
    let mut pending = vec![(&image.root_inode, 0usize, 0u64)];
    while let Some((inode, depth, path)) = pending.pop() {
        if depth > MAX_DEPTH {
            return Err(TooLarge);
        }
        if !visited.insert(inode.header.inode_number) {
            continue;
        }
        for (number, name) in entries(listing(image, inode).unwrap_or_default()) {
            let path = path.saturating_add(name).saturating_add(1);
            let child = image.inodes.get(&number);
            budget.spend(path.saturating_add(child.map_or(0, list_bytes)))?;
            if let Some(child) = child.filter(|child| directory(child).is_some()) {
                pending.push((child, depth.saturating_add(1), path));
            }
        }
    }
    Ok(())
}

/// Block, size and offset of a directory's listing.
fn directory(inode: &Inode) -> Option<(u64, u32, u16)> {
    match &inode.inner {
        InodeInner::BasicDirectory(d) => {
            Some((d.block_index.into(), d.file_size.into(), d.block_offset))
        }
        InodeInner::ExtendedDirectory(d) => {
            Some((d.block_index.into(), d.file_size, d.block_offset))
        }
        _ => None,
    }
}

fn list_bytes(inode: &Inode) -> u64 {
    let blocks = match &inode.inner {
        InodeInner::BasicFile(file) => file.block_sizes.len(),
        InodeInner::ExtendedFile(file) => file.block_sizes.len(),
        _ => 0,
    };
    (blocks as u64).saturating_mul(BLOCK)
}

/// The bytes of a directory's listing. Its size counts three bytes for `.` and `..`.
fn listing<'a>(image: &'a Squashfs<'_>, inode: &Inode) -> Option<&'a [u8]> {
    let (block, size, offset) = directory(inode)?;
    let (starts, bytes) = &image.dir_blocks;
    let start = usize::try_from(*starts.get(&block)?).ok()?;
    let start = start.checked_add(usize::from(offset))?;
    let len = usize::try_from(size.checked_sub(3)?).ok()?;
    let rest = bytes.get(start..)?;
    rest.get(..len.min(rest.len()))
}

/// Inode numbers and name lengths of the entries in a listing.
fn entries(mut listing: &[u8]) -> impl Iterator<Item = (u32, u64)> {
    let mut left = 0u32;
    let mut base = 0u32;
    std::iter::from_fn(move || {
        if left == 0 {
            let (header, rest) = listing.split_at_checked(HEADER)?;
            let count = u32::from_le_bytes(*header.first_chunk()?);
            base = u32::from_le_bytes(*header.last_chunk()?);
            left = count.checked_add(1)?;
            listing = rest;
        }
        let (entry, rest) = listing.split_at_checked(ENTRY)?;
        let delta = i16::from_le_bytes(*entry.get(2..)?.first_chunk()?);
        let name = usize::from(u16::from_le_bytes(*entry.last_chunk()?)).checked_add(1)?;
        listing = rest.get(name..)?;
        left = left.checked_sub(1)?;
        let number = base.checked_add_signed(delta.into())?;
        Some((number, name as u64))
    })
}

/// Opens the metadata of an image and builds its tree, unless that would be too large.
pub(super) fn build<R: backhand::BufReadSeek + 'static>(
    reader: R,
) -> Result<Result<backhand::FilesystemReader<'static>, TooLarge>, BackhandError> {
    let image = Squashfs::from_reader(reader)?;
    match check(&image) {
        Ok(()) => image.into_filesystem_reader().map(Ok),
        Err(too_large) => Ok(Err(too_large)),
    }
}
