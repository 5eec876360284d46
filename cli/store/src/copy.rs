//! Copies an image: shared blocks where the file system can, else its data without the holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::fault;

/// Most bytes copied between two reports of progress.
const CHUNK: u64 = 16 << 20;
/// Size in bytes of the buffer for file systems that the kernel cannot copy between.
const BUFFER: usize = 1 << 20;

/// How a copy is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Share blocks where the file system can, else copy data.
    #[default]
    Auto,
    /// Share blocks, or fail.
    Reflink,
    /// States are ZFS data sets: their snapshots and clones are those of ZFS.
    Zfs,
    /// Copy data.
    Copy,
}

/// How the bytes of a copy came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// Both files share their blocks until one is written to.
    Shared {
        /// Length of the image.
        bytes: u64,
    },
    /// Data was copied.
    Copied {
        /// Bytes of data, holes not counted.
        bytes: u64,
    },
}

impl Copied {
    /// Bytes that were copied and take up space of their own.
    pub fn copied_bytes(self) -> u64 {
        match self {
            Self::Shared { .. } => 0,
            Self::Copied { bytes } => bytes,
        }
    }
}

/// Fills the empty file `to` with the content of `from`. `progress` hears of the offset reached.
///
/// # Errors
/// When reading or writing fails, a full disk for one.
pub fn copy_image(
    from: &File,
    to: &File,
    method: Method,
    progress: &dyn Fn(u64),
) -> io::Result<Copied> {
    let bytes = from.metadata()?.len();
    if method != Method::Copy {
        match rustix::fs::ioctl_ficlone(to, from) {
            Ok(()) => return Ok(Copied::Shared { bytes }),
            Err(errno) if method == Method::Reflink => return Err(errno.into()),
            Err(_) => {}
        }
    }
    to.set_len(bytes)?;
    let (mut at, mut copied) = (0, 0_u64);
    while let Some((start, end)) = next_data(from, at, bytes)? {
        copy_range(from, to, (start, end), progress)?;
        copied = copied.saturating_add(end.saturating_sub(start));
        at = end;
    }
    Ok(Copied::Copied { bytes: copied })
}

/// The next range of data at or after `at`. A file system without holes is all data.
pub(crate) fn next_data(from: &File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= length {
        return Ok(None);
    }
    let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL) => return Ok(Some((at, length))),
        Err(errno) => return Err(errno.into()),
    };
    let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
    Ok(Some((start, end.min(length))))
}

fn copy_range(
    from: &File,
    to: &File,
    (start, end): (u64, u64),
    progress: &dyn Fn(u64),
) -> io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while write_at < end {
        let wanted = usize::try_from((end - write_at).min(CHUNK)).unwrap_or(BUFFER);
        let copied =
            rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), wanted);
        match copied {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {
                fault::point("data is copied in part");
                progress(write_at);
            }
            Err(Errno::INTR) => {}
            // Old kernels and some pairs of file systems cannot; then it goes through memory.
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                let mut buffer = vec![0; wanted.min(BUFFER)];
                from.read_exact_at(&mut buffer, read_at)?;
                to.write_all_at(&buffer, write_at)?;
                let count = u64::try_from(buffer.len()).unwrap_or_default();
                read_at = read_at.saturating_add(count);
                write_at = write_at.saturating_add(count);
                progress(write_at);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_same_bytes_and_length() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.set_len(8 << 20).unwrap();
        from.write_all_at(b"data", 5 << 20).unwrap();
        copy_image(&from, &to, Method::Auto, &|_| ()).unwrap();
        let read = |file: &File| {
            let mut bytes = vec![1; 8 << 20];
            file.read_exact_at(&mut bytes, 0).unwrap();
            (bytes, file.metadata().unwrap().len())
        };
        assert!(read(&from) == read(&to));
    }
}
