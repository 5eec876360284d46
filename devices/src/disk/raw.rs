//! The image itself: an open regular file or block device, byte for byte what the guest sees.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt as _};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::{Extent, ExtentAction, Gate, Preservation, sys};

/// Size of a virtio sector, and the unit an image's size has to be a multiple of.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// Largest single write of zeroes, where the backing has no cheaper way.
static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// What holds the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// A regular file.
    File,
    /// A block device.
    BlockDevice,
}

/// An open raw image.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    size: u64,
    backing: Backing,
    writable: bool,
    armed: Mutex<Option<Arc<Preservation>>>,
    gate: Gate,
}

impl RawDisk {
    /// Takes an open image. Its size is read once: an image that grows later keeps its old size
    /// for the guest, one that shrinks gives I/O errors.
    ///
    /// # Errors
    /// When it is no file or block device, is open in an unfit mode, or its size is no multiple
    /// of 512 bytes.
    pub fn new(mut file: File) -> Result<Self, RawDiskError> {
        let kind = file.metadata().map_err(inspect)?.file_type();
        let backing = match (kind.is_file(), kind.is_block_device()) {
            (true, _) => Backing::File,
            (_, true) => Backing::BlockDevice,
            _ => return Err(RawDiskError::Kind),
        };
        let flags = rustix::fs::fcntl_getfl(&file).map_err(|errno| inspect(errno.into()))?;
        if flags.contains(OFlags::APPEND) {
            return Err(RawDiskError::Mode { mode: "O_APPEND" });
        }
        if flags.contains(OFlags::DIRECT) {
            return Err(RawDiskError::Mode { mode: "O_DIRECT" });
        }
        // A ring would answer EAGAIN instead of waiting for the disk.
        if flags.contains(OFlags::NONBLOCK) {
            return Err(RawDiskError::Mode { mode: "O_NONBLOCK" });
        }
        let writable = match flags & OFlags::RWMODE {
            OFlags::RDONLY => false,
            OFlags::RDWR => true,
            _ => return Err(RawDiskError::Mode { mode: "O_WRONLY" }),
        };
        // The end is where both a file and a block device tell their size.
        let size = file.seek(SeekFrom::End(0)).map_err(inspect)?;
        if size == 0 || !size.is_multiple_of(SECTOR_BYTES) {
            return Err(RawDiskError::Size { size });
        }
        Ok(Self {
            file,
            size,
            backing,
            writable,
            armed: Mutex::new(None),
            gate: Gate::new().map_err(RawDiskError::Gate)?,
        })
    }

    /// Size in bytes, a multiple of 512 and not zero.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Which file it is on its host: numbers of device and inode.
    ///
    /// # Errors
    /// When the host does not tell.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let metadata = self.file.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// What holds the image.
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// Whether it was opened for writing.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// Makes the data written so far survive a power cut, with the metadata needed to read it.
    ///
    /// # Errors
    /// What the host says; the written data may be lost then.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Makes a range of `target` share the image's blocks, so that it has its content at once.
    /// Written data of that range is first given its place on the host's disk.
    ///
    /// # Errors
    /// When the file system cannot, or `target` is on another one; some cannot share ranges that
    /// are not aligned to their blocks.
    pub fn share_with(&self, target: &File, range: Range<u64>) -> io::Result<()> {
        sys::clone_range(&self.file, target, range)
    }

    /// What keeps requests off it for a moment.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Has the content preserved from now on. To be called while the gate is closed or nobody
    /// serves the image; replaces what was armed before.
    pub fn arm(&self, preservation: Arc<Preservation>) {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some(preservation);
    }

    /// Has nothing preserved once the gate was closed again, or the device is next activated.
    pub fn disarm(&self) {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What is armed.
    pub fn armed(&self) -> Option<Arc<Preservation>> {
        let armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        armed.clone()
    }

    /// Fills `buffer` from the image, beginning at this byte.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Discards or zeroes an extent, by the cheapest way the backing has.
    ///
    /// # Errors
    /// What the host says, such as no space left to zero an unallocated range.
    pub fn clear(&self, extent: Extent) -> io::Result<()> {
        let Some(mode) = self.clear_mode(extent.action) else {
            return or_unsupported(
                sys::block_discard(&self.file, extent.offset, extent.len),
                || Ok(()),
            );
        };
        let cleared = rustix::fs::fallocate(&self.file, mode, extent.offset, extent.len);
        or_unsupported(cleared.map_err(io::Error::from), || {
            self.clear_slowly(extent)
        })
    }

    /// The `fallocate` mode that does this action, or nothing when it takes another call.
    pub(super) fn clear_mode(&self, action: ExtentAction) -> Option<FallocateFlags> {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match (action, self.backing) {
            (ExtentAction::Discard, Backing::BlockDevice) => None,
            (ExtentAction::Discard | ExtentAction::Punch, _) => Some(punch),
            (ExtentAction::Zero, _) => Some(FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE),
        }
    }

    /// What remains when the backing refused [`RawDisk::clear_mode`] as unsupported.
    pub(super) fn clear_slowly(&self, extent: Extent) -> io::Result<()> {
        match extent.action {
            ExtentAction::Discard => Ok(()),
            ExtentAction::Zero => self.write_zeroes(extent.offset, extent.len),
            ExtentAction::Punch => {
                let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
                let zeroed = rustix::fs::fallocate(&self.file, zero, extent.offset, extent.len);
                or_unsupported(zeroed.map_err(io::Error::from), || {
                    self.write_zeroes(extent.offset, extent.len)
                })
            }
        }
    }

    fn write_zeroes(&self, mut offset: u64, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let piece = usize::try_from(len).map_or(ZEROES.len(), |len| len.min(ZEROES.len()));
            self.file
                .write_all_at(ZEROES.get(..piece).unwrap_or_default(), offset)?;
            let piece = piece as u64;
            offset = offset.saturating_add(piece);
            len = len.saturating_sub(piece);
        }
        Ok(())
    }
}

impl AsFd for RawDisk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether the host cannot do this at all, as opposed to having failed at it.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::NOTTY)
    )
}

fn or_unsupported(
    result: io::Result<()>,
    other: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    match result {
        Err(error) if is_unsupported(&error) => other(),
        result => result,
    }
}

fn inspect(source: io::Error) -> RawDiskError {
    RawDiskError::Inspect { source }
}

/// Why an open file is not fit to be an image.
#[derive(Debug, thiserror::Error)]
pub enum RawDiskError {
    /// The host did not tell about it.
    #[error("Failed to inspect the image")]
    Inspect {
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a pipe or the like.
    #[error("Image is neither a regular file nor a block device; name a raw image")]
    Kind,
    /// It was opened with a flag that disk I/O cannot use.
    #[error("Image is open with {mode}; open it for reading, or for reading and writing")]
    Mode {
        /// The flag.
        mode: &'static str,
    },
    /// The host refused a descriptor.
    #[error("Failed to make an eventfd for the image")]
    Gate(#[source] io::Error),
    /// Its size is no whole number of sectors.
    #[error(
        "Image has {size} bytes, expected a multiple of 512 and not zero; use truncate to resize it"
    )]
    Size {
        /// Its size in bytes.
        size: u64,
    },
}
