//! Open directories and their listings.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, RawDir, SeekFrom};
use rustix::io::Errno;

/// Bytes of entries that are asked of the host at a time.
const BATCH: usize = 32 * 1024;

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    listing: Mutex<Listing>,
}

impl Directory {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            listing: Mutex::default(),
        }
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Hands the entries from `offset` on to `take`, until that says that it has enough.
    ///
    /// An offset is what an earlier entry came with, or zero for the beginning. Any other number
    /// is the host's to judge: at worst the listing goes on somewhere else in this directory.
    ///
    /// # Errors
    /// What the host says.
    pub fn list(&self, offset: u64, mut take: impl FnMut(&Entry) -> Take) -> Result<(), Errno> {
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        listing.seek(self.fd(), offset)?;
        while let Some(entry) = listing.peek(self.fd())? {
            if take(entry) == Take::Enough {
                break;
            }
            listing.next = listing.next.saturating_add(1);
        }
        Ok(())
    }
}

/// Whether an entry was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// It was.
    Taken,
    /// There was no room for it: it comes again.
    Enough,
}

/// An entry of a directory.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Inode number.
    pub ino: u64,
    /// Where the listing goes on after it.
    pub offset: u64,
    /// `DT_*`.
    pub kind: u32,
    /// Its name.
    pub name: CString,
}

impl Entry {
    /// Whether it is the directory itself, or the one above.
    pub fn is_dots(&self) -> bool {
        matches!(self.name.as_bytes(), b"." | b"..")
    }
}

/// What was read of a directory and not yet passed on, so that each request goes on where the one
/// before stopped.
#[derive(Debug, Default)]
struct Listing {
    entries: Vec<Entry>,
    /// Offset of the first entry.
    begin: u64,
    /// The entry that comes next.
    next: usize,
    at_end: bool,
}

impl Listing {
    /// Goes to `offset`. The beginning is always read anew: entries may have come.
    fn seek(&mut self, fd: BorrowedFd<'_>, offset: u64) -> Result<(), Errno> {
        let ends = self.entries.iter().map(|entry| entry.offset);
        let position = std::iter::once(self.begin)
            .chain(ends)
            .position(|at| at == offset);
        match position {
            Some(position) if offset != 0 => self.next = position,
            _ => {
                rustix::fs::seek(fd, SeekFrom::Start(offset))?;
                *self = Self {
                    begin: offset,
                    ..Self::default()
                };
            }
        }
        Ok(())
    }

    /// The entry that comes next; none at the end.
    fn peek(&mut self, fd: BorrowedFd<'_>) -> Result<Option<&Entry>, Errno> {
        if self.next >= self.entries.len() && !self.at_end {
            self.begin = self.entries.last().map_or(self.begin, |entry| entry.offset);
            self.entries.clear();
            self.next = 0;
            self.fill(fd)?;
        }
        Ok(self.entries.get(self.next))
    }

    fn fill(&mut self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut buffer = [MaybeUninit::uninit(); BATCH];
        let mut raw = RawDir::new(fd, &mut buffer);
        while let Some(entry) = raw.next() {
            let entry = entry?;
            self.entries.push(Entry {
                ino: entry.ino(),
                offset: entry.next_entry_cookie(),
                kind: kind(entry.file_type()),
                name: CStr::to_owned(entry.file_name()),
            });
            if raw.is_buffer_empty() {
                return Ok(());
            }
        }
        self.at_end = true;
        Ok(())
    }
}

/// `DT_*` of the host's entry.
fn kind(file_type: FileType) -> u32 {
    let kind = match file_type {
        FileType::Fifo => libc::DT_FIFO,
        FileType::CharacterDevice => libc::DT_CHR,
        FileType::Directory => libc::DT_DIR,
        FileType::BlockDevice => libc::DT_BLK,
        FileType::RegularFile => libc::DT_REG,
        FileType::Symlink => libc::DT_LNK,
        FileType::Socket => libc::DT_SOCK,
        FileType::Unknown => libc::DT_UNKNOWN,
    };
    kind.into()
}
