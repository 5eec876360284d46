//! The initrd: a file, a buffer, or a file still inside the squashfs image.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use devices::device::Memory;
use vm_memory::{Bytes, GuestAddress};

use super::blob::{Blob, Part};
use super::error::OpenError;
use super::load::LoadError;
use super::source::Tree;
use super::squashfs::SquashTree;

/// Largest initrd, in bytes: what fits below the hole with room to spare.
pub(super) const MAX_INITRD: u64 = 2 << 30;

/// An initrd with a known length, not empty.
#[derive(Debug)]
pub(super) struct Initrd {
    /// Path the user knows it by.
    pub(super) name: String,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Blob(Blob),
    /// Unpacked only when it is loaded, block by block: without a cache there is nowhere on disk
    /// to put it, and memory for it is the guest's.
    Member {
        tree: Arc<SquashTree>,
        path: String,
        len: u64,
    },
}

impl Initrd {
    /// Takes an initrd that can be read at once.
    pub(super) fn from_blob(name: &str, blob: Blob) -> Result<Self, OpenError> {
        check_size(name, blob.len())?;
        Ok(Self {
            name: name.to_owned(),
            data: Data::Blob(blob),
        })
    }

    /// Takes the file at `path` inside an image.
    pub(super) fn from_member(
        tree: &Arc<SquashTree>,
        path: &str,
        len: u64,
    ) -> Result<Self, OpenError> {
        check_size(path, len)?;
        Ok(Self {
            name: path.to_owned(),
            data: Data::Member {
                tree: Arc::clone(tree),
                path: path.to_owned(),
                len,
            },
        })
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        match &self.data {
            Data::Blob(blob) => blob.len(),
            Data::Member { len, .. } => *len,
        }
    }

    /// Copies the initrd to a new file at `path`.
    pub(super) fn copy_to_file(&self, path: &Path) -> io::Result<()> {
        match &self.data {
            Data::Blob(blob) => blob.copy_to_file(path),
            Data::Member {
                tree, path: member, ..
            } => tree.copy(member, &mut File::create(path)?).map(drop),
        }
    }

    /// Copies the initrd to guest-physical `address`.
    pub(super) fn copy_to_guest(&self, memory: &Memory, address: u64) -> Result<(), LoadError> {
        let copied = match &self.data {
            Data::Blob(blob) => {
                let all = Part {
                    offset: 0,
                    length: blob.len(),
                    address,
                };
                blob.copy_to_guest(&[all], memory)
            }
            Data::Member { tree, path, len } => {
                let mut guest = GuestWriter {
                    memory,
                    next: address,
                    left: *len,
                };
                tree.copy(path, &mut guest).and_then(|_| guest.finish())
            }
        };
        copied.map_err(|source| LoadError::Read {
            path: match &self.data {
                Data::Blob(_) => self.name.clone(),
                Data::Member { tree, path, .. } => format!("{}: {path}", tree.path().display()),
            },
            source,
        })
    }
}

fn check_size(name: &str, size: u64) -> Result<(), OpenError> {
    let name = name.to_owned();
    match size {
        0 => Err(OpenError::EmptyInitrd { name }),
        size if size > MAX_INITRD => Err(OpenError::InitrdTooLarge { name, size }),
        _ => Ok(()),
    }
}

/// Writes consecutive bytes to guest memory, no more than were announced.
struct GuestWriter<'a> {
    memory: &'a Memory,
    next: u64,
    left: u64,
}

impl GuestWriter<'_> {
    fn finish(self) -> io::Result<()> {
        match self.left {
            0 => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Write for GuestWriter<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = buf.len() as u64;
        self.left = self
            .left
            .checked_sub(len)
            .ok_or(io::ErrorKind::InvalidData)?;
        self.memory
            .write_slice(buf, GuestAddress(self.next))
            .map_err(io::Error::other)?;
        self.next = self.next.saturating_add(len);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
