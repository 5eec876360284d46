//! The bytes of a kernel or an initrd: a file that is read straight into guest memory, or a buffer
//! when there is no file to read from.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, ErrorKind, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use devices::device::Memory;
use vm_memory::{Bytes, GuestAddress, ReadVolatile};

use super::parallel;

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
            Self::File { file, len, .. } => write!(f, "{file:?}, {len} bytes"),
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

    /// Copies everything to a new file at `path`.
    pub(super) fn copy_to_file(&self, path: &Path) -> io::Result<()> {
        let mut to = File::create(path)?;
        match self {
            Self::File { file, .. } => {
                let mut from: &File = file;
                from.rewind()?;
                io::copy(&mut from, &mut to).map(drop)
            }
            Self::Memory(bytes) => to.write_all(bytes),
        }
    }

    /// Copies parts to guest memory, without a buffer in between.
    pub(super) fn copy_to_guest(&self, parts: &[Part], memory: &Memory) -> io::Result<()> {
        match self {
            Self::File { file, .. } => parallel::copy_parts(file, parts, memory),
            Self::Memory(bytes) => parts.iter().try_for_each(|part| {
                let mut source = Cursor::new(range(bytes, part.offset, part.length)?);
                copy_part(&mut source, part, memory)
            }),
        }
    }
}

fn copy_part(source: &mut impl ReadVolatile, part: &Part, memory: &Memory) -> io::Result<()> {
    let count = usize::try_from(part.length).map_err(io::Error::other)?;
    memory
        .read_exact_volatile_from(GuestAddress(part.address), source, count)
        .map_err(io::Error::other)
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
