//! Reads files out of a squashfs 4.0 image, which may be damaged or made to harm.
//!
//! The `backhand` crate does the reading; this folder keeps it within bounds. [`superblock`] gives
//! clear errors and limits how much metadata is unpacked, since the crate reads all of it into
//! memory; [`walk`] limits the tree the crate builds; and a panic of the crate becomes an error.

mod superblock;
mod walk;

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use backhand::{BackhandError, FilesystemReader, InnerNode};

use super::error::OpenError;
use super::source::{Node, Tree};

pub(super) use self::superblock::Superblock;

/// Most metadata unpacked, in MiB: a quarter of a million files, a bootstrap has some ten thousand.
const METADATA_MIB: u64 = 32;
/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;

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
        let reader = guarded(|| walk::build(BufReader::new(file)))
            .map_err(damaged)?
            .map_err(|error| damaged(to_io(error)))?
            .map_err(|walk::TooLarge| OpenError::Oversized {
                path: path.to_owned(),
                limit: METADATA_MIB,
            })?;
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
