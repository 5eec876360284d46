//! The superblock of a squashfs 4.0 image, and limits on the metadata it leads to.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::error::OpenError;
use super::METADATA_MIB;

/// Bytes of the superblock.
const SIZE: usize = 96;
/// Bytes a metadata block unpacks to, at most.
const METADATA_BLOCK: u64 = 8192;
/// Set in the length of a metadata block that is stored as it is.
const STORED: u16 = 0x8000;
/// Bytes of an entry of the fragment table.
const FRAGMENT: u64 = 16;
/// Flag: there is an export table.
const EXPORTABLE: u16 = 0x80;
/// Position of a table that is not there.
const NOT_SET: u64 = u64::MAX;

/// The checked superblock of an image.
pub(in super::super) struct Superblock {
    /// Its bytes, part of the image's identity.
    pub(in super::super) bytes: [u8; SIZE],
}

impl Superblock {
    /// Reads and checks the superblock of the image in `file`.
    pub(in super::super) fn read(path: &Path, file: &File) -> Result<Self, OpenError> {
        let image = |source| OpenError::Image {
            path: path.to_owned(),
            source,
        };
        if file.metadata().map_err(image)?.is_dir() {
            return Err(image(ErrorKind::IsADirectory.into()));
        }
        let actual = file_len(file).map_err(image)?;
        let mut bytes = [0; SIZE];
        let filled = usize::try_from(actual).map_or(SIZE, |len| len.min(SIZE));
        if let Some(part) = bytes.get_mut(..filled) {
            file.read_exact_at(part, 0).map_err(image)?;
        }
        let superblock = Self { bytes };
        superblock.check_magic(path, actual)?;
        superblock.check_format(path)?;
        let expected = superblock.u64_at(40).max(SIZE as u64);
        if actual < expected {
            return Err(OpenError::Truncated {
                path: path.to_owned(),
                expected,
                actual,
            });
        }
        Ok(superblock)
    }

    fn check_magic(&self, path: &Path, actual: u64) -> Result<(), OpenError> {
        let found = match self.bytes {
            [b'h', b's', b'q', b's', ..] => return Ok(()),
            [b's', b'q', b's', b'h', ..] => {
                return unsupported(path, "big-endian squashfs".to_owned());
            }
            _ if actual == 0 => "nothing".to_owned(),
            [a, b, c, d, ..] => format!("{:02x?}", [a, b, c, d]),
        };
        Err(OpenError::NotSquashfs {
            path: path.to_owned(),
            found,
        })
    }

    fn check_format(&self, path: &Path) -> Result<(), OpenError> {
        let (major, minor) = (self.u16_at(28), self.u16_at(30));
        if (major, minor) != (4, 0) {
            return unsupported(path, format!("squashfs version {major}.{minor}"));
        }
        match self.u16_at(20) {
            1 | 4 | 5 | 6 => {}
            2 => return unsupported(path, "lzma compression".to_owned()),
            3 => return unsupported(path, "lzo compression".to_owned()),
            other => return unsupported(path, format!("compression number {other}")),
        }
        // The reader sizes its buffers by these two.
        let (size, log) = (self.u32_at(12), u32::from(self.u16_at(22)));
        if !(12..=20).contains(&log) || 1u32.checked_shl(log) != Some(size) {
            return Err(damaged(path, "block size and its logarithm disagree"));
        }
        Ok(())
    }

    /// Refuses an image whose metadata would not fit the limit, or whose tables do not end where
    /// the next begins, by walking the lengths of their blocks without unpacking them.
    pub(super) fn check_metadata(&self, path: &Path, file: &File) -> Result<(), OpenError> {
        let fragments = u64::from(self.u32_at(16));
        let mut budget = METADATA_MIB << 20;
        let oversized = || OpenError::Oversized {
            path: path.to_owned(),
            limit: METADATA_MIB,
        };
        budget = budget
            .checked_sub(fragments.saturating_mul(FRAGMENT))
            .ok_or_else(oversized)?;
        let (inodes, directories) = (self.u64_at(64), self.u64_at(72));
        let end = self
            .directories_end(file, fragments)
            .map_err(|_| damaged(path, "a table lies outside of the image"))?;
        for (start, end) in [(inodes, directories), (directories, end)] {
            let mut at = start;
            while at < end {
                budget = budget.checked_sub(METADATA_BLOCK).ok_or_else(oversized)?;
                let mut word = [0; 2];
                file.read_exact_at(&mut word, at)
                    .map_err(|_| damaged(path, "a table lies outside of the image"))?;
                let length = u64::from(u16::from_le_bytes(word) & !STORED);
                at = at.saturating_add(length).saturating_add(2);
            }
            if at != end {
                return Err(damaged(
                    path,
                    "a metadata table does not end where it should",
                ));
            }
        }
        Ok(())
    }

    /// Where the directory table ends: at the first block of the table that follows it.
    fn directories_end(&self, file: &File, fragments: u64) -> io::Result<u64> {
        let (fragment_table, export_table) = (self.u64_at(80), self.u64_at(88));
        let next = if fragments != 0 && fragment_table != NOT_SET {
            fragment_table
        } else if self.u16_at(24) & EXPORTABLE != 0 && export_table != NOT_SET {
            export_table
        } else {
            self.u64_at(48)
        };
        let mut pointer = [0; 8];
        file.read_exact_at(&mut pointer, next)?;
        Ok(u64::from_le_bytes(pointer))
    }

    fn u16_at(&self, at: usize) -> u16 {
        self.field(at).map_or(0, u16::from_le_bytes)
    }

    fn u32_at(&self, at: usize) -> u32 {
        self.field(at).map_or(0, u32::from_le_bytes)
    }

    fn u64_at(&self, at: usize) -> u64 {
        self.field(at).map_or(0, u64::from_le_bytes)
    }

    fn field<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..)?.first_chunk().copied()
    }
}

/// Length of a file or a block device, which an image may be as well.
fn file_len(file: &File) -> io::Result<u64> {
    rustix::fs::seek(file, rustix::fs::SeekFrom::End(0)).map_err(Into::into)
}

fn unsupported(path: &Path, found: String) -> Result<(), OpenError> {
    let path = path.to_owned();
    Err(OpenError::Unsupported { path, found })
}

fn damaged(path: &Path, reason: &'static str) -> OpenError {
    OpenError::Damaged {
        path: path.to_owned(),
        source: io::Error::new(ErrorKind::InvalidData, reason),
    }
}
