//! The bytes of a kernel or an initrd: a file that is read straight into guest memory, or a buffer
//! when there is no file to read from.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, ErrorKind, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;

use devices::device::Memory;
use vm_memory::{Bytes, GuestAddress, ReadVolatile};

/// From this many bytes on, a file is copied by two threads: filling fresh guest memory is mostly
/// the kernel zeroing pages, which two processors do in little more than half the time.
const SPLIT_BYTES: u64 = 8 << 20;
/// Threads copy whole huge pages, so that they do not fault in the same one.
const HUGE_PAGE: u64 = 2 << 20;

/// A part of a blob and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// First byte in the blob.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) length: u64,
    /// Guest-physical address of the first byte.
    pub(super) address: u64,
}

/// Bytes with a known length.
pub(super) enum Blob {
    /// An open regular file, read at absolute offsets.
    File {
        /// The file; nobody else moves its position.
        file: File,
        /// Its length in bytes when it was opened.
        len: u64,
    },
    /// A buffer.
    Memory(Vec<u8>),
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, len } => write!(f, "{file:?}, {len} bytes"),
            Self::Memory(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

impl Blob {
    /// Opens a regular file on the host. Anything else is an error that says so.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Without O_NONBLOCK, opening a FIFO would wait for a writer that never comes.
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nonblock.cast_signed())
            .open(path)?;
        Self::from_file(file)
    }

    /// Takes an open regular file.
    pub(super) fn from_file(file: File) -> io::Result<Self> {
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        if !meta.is_file() {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "expected a regular file",
            ));
        }
        Ok(Self::File {
            file,
            len: meta.len(),
        })
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Fills `buf` from `offset`; `UnexpectedEof` when the blob ends before.
    pub(super) fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File { file, .. } => file.read_exact_at(buf, offset),
            Self::Memory(bytes) => {
                let part = range(bytes, offset, buf.len() as u64)?;
                buf.copy_from_slice(part);
                Ok(())
            }
        }
    }

    /// The first `max` bytes, fewer when the blob is shorter.
    pub(super) fn prefix(&self, max: usize) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.len()).map_or(max, |len| len.min(max));
        let mut buf = vec![0; len];
        self.read_exact_at(&mut buf, 0)?;
        Ok(buf)
    }

    /// All bytes; `InvalidData` when there are more than `limit`.
    pub(super) fn to_vec(&self, limit: u64) -> io::Result<Vec<u8>> {
        if self.len() > limit {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("larger than {limit} bytes"),
            ));
        }
        self.prefix(usize::MAX)
    }

    /// Copies parts to guest memory, without a buffer in between.
    pub(super) fn copy_to_guest(&self, parts: &[Part], memory: &Memory) -> io::Result<()> {
        match self {
            Self::File { file, .. } => copy_file(file, parts, memory),
            Self::Memory(bytes) => parts.iter().try_for_each(|part| {
                let mut source = Cursor::new(range(bytes, part.offset, part.length)?);
                copy_part(&mut source, part, memory)
            }),
        }
    }
}

fn copy_file(file: &File, parts: &[Part], memory: &Memory) -> io::Result<()> {
    let total = parts.iter().map(|part| part.length).sum::<u64>();
    // Each thread needs a file position of its own; without /proc, one thread does it all.
    let other = match total >= SPLIT_BYTES {
        true => File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).ok(),
        false => None,
    };
    let Some(other) = other else {
        return copy_parts(file, parts, memory);
    };
    let (first, second) = split(parts, total / 2);
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("load".to_owned());
        let helper = builder.spawn_scoped(scope, || copy_parts(&other, &second, memory))?;
        copy_parts(file, &first, memory)?;
        helper
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the loading thread panicked")))
    })
}

fn copy_parts(mut file: &File, parts: &[Part], memory: &Memory) -> io::Result<()> {
    parts.iter().try_for_each(|part| {
        file.seek(SeekFrom::Start(part.offset))?;
        copy_part(&mut file, part, memory)
    })
}

fn copy_part(source: &mut impl ReadVolatile, part: &Part, memory: &Memory) -> io::Result<()> {
    let count = usize::try_from(part.length).map_err(io::Error::other)?;
    memory
        .read_exact_volatile_from(GuestAddress(part.address), source, count)
        .map_err(io::Error::other)
}

/// Splits after about `bytes` bytes, at the start of a huge page when it is within a part.
fn split(parts: &[Part], bytes: u64) -> (Vec<Part>, Vec<Part>) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut left = bytes;
    for part in parts {
        let cut = part.address.saturating_add(left) / HUGE_PAGE * HUGE_PAGE;
        let head = cut.saturating_sub(part.address).min(part.length);
        left = left.saturating_sub(part.length);
        let tail = Part {
            offset: part.offset.saturating_add(head),
            length: part.length.saturating_sub(head),
            address: part.address.saturating_add(head),
        };
        let head = Part {
            length: head,
            ..*part
        };
        first.extend((head.length > 0).then_some(head));
        second.extend((tail.length > 0).then_some(tail));
    }
    (first, second)
}

fn range(bytes: &[u8], offset: u64, len: u64) -> io::Result<&[u8]> {
    let start = usize::try_from(offset).ok();
    let end = offset
        .checked_add(len)
        .and_then(|end| usize::try_from(end).ok());
    start
        .zip(end)
        .and_then(|(start, end)| bytes.get(start..end))
        .ok_or_else(|| ErrorKind::UnexpectedEof.into())
}
