//! Reads files out of a squashfs 4.0 image, which may be damaged or made to harm.
//!
//! The `backhand` crate does the reading; this file keeps it within bounds. It checks the
//! superblock itself, for clear errors; limits how much metadata is unpacked, since the crate
//! reads all of it into memory; and turns a panic of the crate into an error.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use backhand::{BackhandError, FilesystemReader, InnerNode};

use super::error::OpenError;
use super::source::{Node, Tree};

/// Bytes of the superblock.
pub(super) const SUPERBLOCK: usize = 96;
/// Most metadata unpacked, in MiB: about half a million files, a bootstrap has some ten thousand.
const METADATA_MIB: u64 = 64;
/// Bytes a metadata block unpacks to, at most.
const METADATA_BLOCK: u64 = 8192;
/// Set in the length of a metadata block that is stored as it is.
const STORED: u16 = 0x8000;
/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;

/// The checked superblock of an image.
pub(super) struct Superblock {
    /// Its bytes, part of the image's identity.
    pub(super) bytes: [u8; SUPERBLOCK],
    inode_table: u64,
    directory_table: u64,
    fragment_table: u64,
}

impl Superblock {
    /// Reads and checks the superblock of the image in `file`.
    pub(super) fn read(path: &Path, file: &File) -> Result<Self, OpenError> {
        let image = |source| OpenError::Image {
            path: path.to_owned(),
            source,
        };
        let meta = file.metadata().map_err(image)?;
        if meta.is_dir() {
            return Err(image(io::ErrorKind::IsADirectory.into()));
        }
        let actual = file_len(file).map_err(image)?;
        let mut bytes = [0; SUPERBLOCK];
        let filled = usize::try_from(actual).map_or(SUPERBLOCK, |len| len.min(SUPERBLOCK));
        if let Some(part) = bytes.get_mut(..filled) {
            file.read_exact_at(part, 0).map_err(image)?;
        }
        if actual == 0 {
            return Err(OpenError::NotSquashfs {
                path: path.to_owned(),
                found: "nothing".to_owned(),
            });
        }
        check_format(path, &bytes)?;
        let expected = u64_at(&bytes, 40);
        if actual < expected.max(SUPERBLOCK as u64) {
            return Err(OpenError::Truncated {
                path: path.to_owned(),
                expected: expected.max(SUPERBLOCK as u64),
                actual,
            });
        }
        Ok(Self {
            bytes,
            inode_table: u64_at(&bytes, 64),
            directory_table: u64_at(&bytes, 72),
            fragment_table: u64_at(&bytes, 80),
        })
    }

    /// Refuses an image whose metadata would not fit the limit, by walking the lengths of its
    /// blocks without unpacking them.
    fn check_metadata(&self, path: &Path, file: &File) -> Result<(), OpenError> {
        let damaged = |source| OpenError::Damaged {
            path: path.to_owned(),
            source,
        };
        let end = self.fragment_table.min(file_len(file).map_err(damaged)?);
        let mut at = self.inode_table;
        let mut unpacked = 0u64;
        // Directories follow the inodes; a block that runs past the end is found by the reader.
        while at < end.max(self.directory_table) {
            let mut word = [0; 2];
            if file.read_exact_at(&mut word, at).is_err() {
                break;
            }
            let length = u64::from(u16::from_le_bytes(word) & !STORED);
            at = at.saturating_add(length).saturating_add(2);
            unpacked = unpacked.saturating_add(METADATA_BLOCK);
            if unpacked > METADATA_MIB << 20 {
                return Err(OpenError::Oversized {
                    path: path.to_owned(),
                    limit: METADATA_MIB,
                });
            }
        }
        Ok(())
    }
}

/// Length of a file or a block device, which an image may be as well.
fn file_len(file: &File) -> io::Result<u64> {
    rustix::fs::seek(file, rustix::fs::SeekFrom::End(0)).map_err(Into::into)
}

fn check_format(path: &Path, bytes: &[u8; SUPERBLOCK]) -> Result<(), OpenError> {
    let [m0, m1, m2, m3, ..] = *bytes;
    let unsupported = |found: String| {
        let path = path.to_owned();
        Err(OpenError::Unsupported { path, found })
    };
    match &[m0, m1, m2, m3] {
        b"hsqs" => {}
        b"sqsh" => return unsupported("big-endian squashfs".to_owned()),
        found => {
            return Err(OpenError::NotSquashfs {
                path: path.to_owned(),
                found: format!("{found:02x?}"),
            });
        }
    }
    let (major, minor) = (u16_at(bytes, 28), u16_at(bytes, 30));
    if (major, minor) != (4, 0) {
        return unsupported(format!("squashfs version {major}.{minor}"));
    }
    match u16_at(bytes, 20) {
        1 | 4 | 5 | 6 => Ok(()),
        2 => unsupported("lzma compression".to_owned()),
        3 => unsupported("lzo compression".to_owned()),
        other => unsupported(format!("compression number {other}")),
    }
}

fn u16_at(bytes: &[u8; SUPERBLOCK], at: usize) -> u16 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u16::from_le_bytes(*field))
}

fn u64_at(bytes: &[u8; SUPERBLOCK], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u64::from_le_bytes(*field))
}

/// The files of an image.
pub(super) struct SquashTree {
    path: PathBuf,
    reader: FilesystemReader<'static>,
}

impl fmt::Debug for SquashTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SquashTree").field(&self.path).finish()
    }
}

impl SquashTree {
    /// Reads the metadata of the image in `file`.
    pub(super) fn open(path: &Path, file: File, block: &Superblock) -> Result<Self, OpenError> {
        block.check_metadata(path, &file)?;
        let damaged = |source| OpenError::Damaged {
            path: path.to_owned(),
            source,
        };
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).map_err(|e| damaged(e.into()))?;
        let reader = guarded(|| FilesystemReader::from_reader(BufReader::new(file)))
            .map_err(damaged)?
            .map_err(|error| damaged(to_io(error)))?;
        Ok(Self {
            path: path.to_owned(),
            reader,
        })
    }

    fn inner(&self, path: &str) -> Option<&InnerNode<backhand::SquashfsFileReader>> {
        let nodes = &self.reader.root.nodes;
        let path = Path::new(path);
        let at = nodes.binary_search_by(|node| node.fullpath.as_path().cmp(path));
        at.ok().and_then(|at| nodes.get(at)).map(|node| &node.inner)
    }
}

impl Tree for SquashTree {
    fn path(&self) -> &Path {
        &self.path
    }

    fn node(&self, path: &str) -> Option<Node> {
        Some(match self.inner(path)? {
            InnerNode::File(file) => Node::File(file.file_len() as u64),
            InnerNode::Dir(_) => Node::Directory,
            InnerNode::Symlink(link) => Node::Symlink(link.link.to_str()?.to_owned()),
            _ => Node::Other,
        })
    }

    fn names(&self, path: &str) -> Vec<String> {
        let directory = Path::new(path);
        let nodes = &self.reader.root.nodes;
        let first = nodes.partition_point(|node| node.fullpath.as_path() <= directory);
        let below = nodes.get(first..).unwrap_or_default().iter();
        below
            .take_while(|node| node.fullpath.starts_with(directory))
            .filter(|node| node.fullpath.parent() == Some(directory))
            .filter_map(|node| node.fullpath.file_name()?.to_str())
            .map(str::to_owned)
            .collect()
    }

    fn copy(&self, path: &str, sink: &mut dyn Write) -> io::Result<u64> {
        let Some(InnerNode::File(file)) = self.inner(path) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let expected = file.file_len() as u64;
        let copied = guarded(|| -> io::Result<u64> {
            let reader = self.reader.file(file).reader_checked().map_err(to_io)?;
            copy_bounded(reader, expected, sink)
        })??;
        match copied == expected {
            true => Ok(copied),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Copies until the end, but fails as soon as there is more than `expected`.
fn copy_bounded(mut reader: impl Read, expected: u64, sink: &mut dyn Write) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut copied = 0u64;
    loop {
        let count = reader.read(&mut chunk)?;
        let Some(part @ [_, ..]) = chunk.get(..count) else {
            return Ok(copied);
        };
        copied = copied.saturating_add(part.len() as u64);
        if copied > expected {
            return Err(io::ErrorKind::InvalidData.into());
        }
        sink.write_all(part)?;
    }
}

/// Runs `read`, turning a panic of the squashfs crate into an error. The crate's state is not used
/// any more after one, except for dropping it.
fn guarded<T>(read: impl FnOnce() -> T) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(read)).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the squashfs reader gave up on a damaged structure",
        )
    })
}

fn to_io(error: BackhandError) -> io::Error {
    // The crate has no texts of its own here: they come with a feature that also logs.
    let text = match error {
        BackhandError::StdIo(error) => return error,
        BackhandError::Deku(_) => "a structure does not parse",
        BackhandError::UnsupportedInode | BackhandError::UnexpectedInode => {
            "an inode is of the wrong kind"
        }
        BackhandError::UnsupportedCompression(_) | BackhandError::CompressionInit(_) => {
            "a block does not unpack"
        }
        BackhandError::InvalidIdTable => "the id table is too short",
        _ => "a structure points outside of its table",
    };
    io::Error::new(io::ErrorKind::InvalidData, text)
}
