//! Kernels and initrds as plain files, and an index of which source yields which.
//!
//! | path in the cache directory | what it is |
//! |---|---|
//! | `index/<key>` | a [`Record`](record::Record): SHA-256 of the rest, a newline, JSON |
//! | `kernels/<sha256 of the source>.elf`, `.bzimage` | a kernel, unpacked when that is possible |
//! | `initrds/<sha256>.img` | an initrd |
//! | `lock` | held while the cache is written; nobody ever waits for it |
//!
//! The key is a digest over the identity of the source file ([`super::identity`]): a boot that hits
//! reads neither squashfs metadata nor file contents before it loads them. A file is trusted while
//! its inode, size and times are those recorded when it was written, else its digest is checked.
//! Files appear by rename after they are on disk, so a crash leaves at worst a temporary file, which
//! the next fill removes. Everything is owned by the user and closed to others: an initrd may hold
//! secrets.

mod fill;
mod lookup;
mod record;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

pub(super) use self::fill::{Fill, Stored};
pub(super) use self::lookup::Lookup;
pub(super) use self::record::Facts;

/// Sources remembered, the most recently used ones: their kernels and initrds, some 50 MiB each,
/// are all that the cache holds.
pub(super) const MAX_RECORDS: usize = 8;
/// Directory of records.
const INDEX: &str = "index";
/// Directory of kernels.
const KERNELS: &str = "kernels";
/// Directory of initrds.
const INITRDS: &str = "initrds";
/// Write permission for group and others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A usable cache directory.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
    access: Access,
}

/// What may be done with a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadWrite,
    ReadOnly,
}

impl Cache {
    /// Opens the cache at `dir`, creating it when missing. An error says why it is not to be used.
    pub(super) fn open(dir: &Path) -> Result<Self, String> {
        let made = if dir.is_dir() {
            Ok(())
        } else {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)
        };
        made.and_then(|()| Self::checked(dir, Access::ReadWrite))
            .map_err(|error| format!("{}: {error}", dir.display()))
    }

    /// Opens the cache at `dir` as it is, for looking things up only.
    pub(super) fn open_existing(dir: &Path) -> Result<Self, String> {
        Self::checked(dir, Access::ReadOnly).map_err(|error| format!("{}: {error}", dir.display()))
    }

    /// Whether it may be filled.
    pub(super) fn is_writable(&self) -> bool {
        self.access == Access::ReadWrite
    }

    fn checked(dir: &Path, access: Access) -> io::Result<Self> {
        let cache = Self {
            dir: dir.to_owned(),
            access,
        };
        cache.check()?;
        Ok(cache)
    }

    fn check(&self) -> io::Result<()> {
        let meta = self.dir.metadata()?;
        // Whoever can write here decides which kernel boots.
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(refused("owned by another user"));
        }
        if meta.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(refused("writable by other users"));
        }
        Ok(())
    }
}

fn refused(reason: &'static str) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, reason)
}

/// Opens a file of the cache for reading: a regular file of ours, not a symlink.
fn open_own(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(refused("not a regular file of this user"));
    }
    Ok(file)
}
