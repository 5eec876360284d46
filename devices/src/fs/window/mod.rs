//! The DAX window of a share (virtio 1.2 §5.11.6.4): shared memory region 0, in which the guest maps
//! files of the host and reads them without a request, out of the host's page cache.
//!
//! It knows neither FUSE nor KVM: the backend says what to map where, the machine shows the
//! addresses to the guest, read-only. It is divided into cells of 2 MiB, each of which holds a part
//! of one file or zeroes. That bounds what a guest can make the host map, and it is what Linux asks
//! for.

mod sys;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FileType, OFlags, Stat, fcntl_getfl, fstat};

use self::sys::Reservation;
use crate::vhost_user::SharedRegion;

/// What is mapped at once, in bytes; offsets into the window and into files are multiples of it.
pub const CELL_BYTES: u64 = 2 << 20;

/// Smallest window, in bytes: with fewer cells, Linux waits for itself to free one.
pub const MIN_WINDOW_BYTES: u64 = 16 << 20;

/// Largest window, in bytes: each cell may hold a descriptor and two entries of the process's map,
/// of which the host allows 65,530.
pub const MAX_WINDOW_BYTES: u64 = 16 << 30;

/// The identifier of the region that the window is (§5.11.6.4, `VIRTIO_FS_SHMCAP_ID_CACHE`).
pub const WINDOW_REGION: u8 = 0;

const PAGE_BYTES: u64 = 4096;

/// A window, at its place in the guest and with what is mapped in it.
#[derive(Debug)]
pub struct Window {
    memory: Reservation,
    address: u64,
    /// Which backend maps now, counted from the first.
    backend: AtomicU64,
    cells: Mutex<Vec<Option<Cell>>>,
}

/// What a cell shows.
#[derive(Debug, Clone)]
struct Cell {
    file: Arc<File>,
    /// Device and number of the file's inode.
    inode: (u64, u64),
    /// Where in the file it begins, in bytes.
    offset: u64,
    /// How much of it is the file, from the beginning, in bytes; zeroes follow. All, until the file
    /// was found truncated.
    shown: u64,
    /// Which backend asked for it.
    backend: u64,
}

/// Why something was not mapped, or not removed.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// The place is not one.
    #[error(
        "{len:#x} bytes at {offset:#x} of a window of {window:#x} bytes, expected whole cells of 2 MiB within it"
    )]
    Place {
        /// Where, from the beginning of the window, in bytes.
        offset: u64,
        /// How much, in bytes.
        len: u64,
        /// Size of the window, in bytes.
        window: u64,
    },
    /// The part of the file is none.
    #[error("File offset {offset:#x}, expected a multiple of 2 MiB within the file")]
    FileOffset {
        /// Where in the file, in bytes.
        offset: u64,
    },
    /// The descriptor is of no use.
    #[error("What is to be mapped is not a regular file that is open for reading alone")]
    NotReadOnly,
    /// The size of a window is out of range.
    #[error("A window of {bytes} bytes, expected 16 MiB to 16 GiB in steps of 2 MiB")]
    Size {
        /// Size asked for, in bytes.
        bytes: u64,
    },
    /// The host refused something.
    #[error("Failed to {action}")]
    Host {
        /// What was being done.
        action: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

impl WindowError {
    fn on(action: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Host { action, source }
    }
}

impl Window {
    /// Reserves `bytes` that the guest is to find at `address`. They take no memory of the host's
    /// until files are mapped, and then only the host's page cache.
    ///
    /// # Errors
    /// When the size is out of range, or the host has no room.
    pub fn reserve(bytes: u64, address: u64) -> Result<Self, WindowError> {
        let in_range = (MIN_WINDOW_BYTES..=MAX_WINDOW_BYTES).contains(&bytes);
        if !in_range || !bytes.is_multiple_of(CELL_BYTES) {
            return Err(WindowError::Size { bytes });
        }
        let length = usize::try_from(bytes).map_err(|_| WindowError::Size { bytes })?;
        let memory = Reservation::new(length).map_err(WindowError::on("reserve addresses"))?;
        let cells = usize::try_from(bytes / CELL_BYTES).unwrap_or(0);
        Ok(Self {
            memory,
            address,
            backend: AtomicU64::new(0),
            cells: Mutex::new(vec![None; cells]),
        })
    }

    /// Where the guest finds it.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its size, in bytes.
    pub fn bytes(&self) -> u64 {
        self.memory.range().len() as u64
    }

    /// Its addresses in this process, for the machine to show. They stay the same, whatever is
    /// mapped there.
    pub fn range(&self) -> Range<usize> {
        self.memory.range()
    }

    /// Whether anything is mapped.
    pub fn is_empty(&self) -> bool {
        self.lock().iter().all(Option::is_none)
    }

    /// Another backend maps from now on. What is mapped stays.
    pub fn change_backend(&self) {
        self.backend.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether anything is mapped that the backend of now did not ask for, and knows nothing of.
    pub fn has_mappings_of_others(&self) -> bool {
        let backend = self.backend.load(Ordering::Relaxed);
        let cells = self.lock();
        cells.iter().flatten().any(|cell| cell.backend != backend)
    }

    /// Shows `len` bytes of `file` from `file_offset` on at `offset` of the window, in the place of
    /// what was there. What lies beyond the end of the file is not to be touched; a guest that does
    /// finds zeroes after [`repair`](Self::repair).
    ///
    /// # Errors
    /// When the place or the part of the file is none, the file is not a regular one that is open
    /// for reading alone, or the host refuses. Cells up to the one that failed are changed then.
    pub fn map(
        &self,
        offset: u64,
        len: u64,
        file: File,
        file_offset: u64,
    ) -> Result<(), WindowError> {
        let range = self.cells_at(offset, len)?;
        let found =
            fstat(&file).map_err(|error| WindowError::on("look at a file")(error.into()))?;
        is_readable(&file, &found)?;
        let size = u64::try_from(found.st_size).unwrap_or(0);
        let in_file = file_offset.is_multiple_of(CELL_BYTES)
            && file_offset < size
            && file_offset
                .checked_add(len)
                .is_some_and(|end| i64::try_from(end).is_ok());
        if !in_file {
            return Err(WindowError::FileOffset {
                offset: file_offset,
            });
        }
        let mut cells = self.lock();
        // One descriptor for each file is enough.
        let inode = (found.st_dev, found.st_ino);
        let held = cells.iter().flatten().find(|cell| cell.inode == inode);
        let file = held.map_or_else(|| Arc::new(file), |cell| Arc::clone(&cell.file));
        for (index, at) in range.zip((file_offset..).step_by(CELL_STEP)) {
            let cell = Cell {
                file: Arc::clone(&file),
                inode,
                offset: at,
                shown: CELL_BYTES,
                backend: self.backend.load(Ordering::Relaxed),
            };
            self.memory
                .put(bytes_of(index), cell.file.as_fd(), at)
                .map_err(WindowError::on("map a file"))?;
            if let Some(place) = cells.get_mut(index) {
                *place = Some(cell);
            }
        }
        Ok(())
    }

    /// Shows zeroes at `offset` for `len` bytes.
    ///
    /// # Errors
    /// When the place is none, or the host refuses.
    pub fn unmap(&self, offset: u64, len: u64) -> Result<(), WindowError> {
        let range = self.cells_at(offset, len)?;
        let mut cells = self.lock();
        for index in range {
            let place = cells.get_mut(index);
            if let Some(place) = place.filter(|place| place.is_some()) {
                self.memory
                    .blank(bytes_of(index))
                    .map_err(WindowError::on("unmap a file"))?;
                *place = None;
            }
        }
        Ok(())
    }

    /// Shows zeroes where files end meanwhile before what is mapped of them: a processor of the guest
    /// has found no memory there. Returns in how many cells. The guest is told nothing; of a file that
    /// grows again, it sees those zeroes until it maps it anew.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn repair(&self) -> io::Result<usize> {
        let mut repaired = 0;
        for (index, place) in self.lock().iter_mut().enumerate() {
            let Some(cell) = place else { continue };
            let size = u64::try_from(fstat(&cell.file)?.st_size).unwrap_or(0);
            let left = size
                .saturating_sub(cell.offset)
                .next_multiple_of(PAGE_BYTES);
            if left < cell.shown {
                let place = bytes_of(index);
                let gone = usize::try_from(left).unwrap_or(0);
                self.memory
                    .blank(place.start.saturating_add(gone)..place.end)?;
                cell.shown = left;
                repaired += 1;
            }
        }
        Ok(repaired)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cells of a place.
    fn cells_at(&self, offset: u64, len: u64) -> Result<Range<usize>, WindowError> {
        let window = self.bytes();
        let end = offset.checked_add(len).filter(|end| *end <= window);
        let whole = offset.is_multiple_of(CELL_BYTES) && len.is_multiple_of(CELL_BYTES) && len > 0;
        let cell = |bytes: u64| usize::try_from(bytes / CELL_BYTES).unwrap_or(usize::MAX);
        end.filter(|_| whole)
            .map(|end| cell(offset)..cell(end))
            .ok_or(WindowError::Place {
                offset,
                len,
                window,
            })
    }
}

impl SharedRegion for Window {
    fn id(&self) -> u8 {
        WINDOW_REGION
    }

    fn bytes(&self) -> u64 {
        Self::bytes(self)
    }

    fn map(&self, offset: u64, len: u64, file: File, file_offset: u64) -> io::Result<()> {
        Self::map(self, offset, len, file, file_offset).map_err(io::Error::from)
    }

    fn unmap(&self, offset: u64, len: u64) -> io::Result<()> {
        Self::unmap(self, offset, len).map_err(io::Error::from)
    }
}

/// As the backend is told.
impl From<WindowError> for io::Error {
    fn from(error: WindowError) -> Self {
        match error {
            WindowError::Host { source, .. } => source,
            error => Self::new(io::ErrorKind::InvalidInput, error),
        }
    }
}

const CELL_STEP: usize = 2 << 20;
const _: () = assert!(CELL_STEP as u64 == CELL_BYTES);

/// Where a cell lies in the window.
fn bytes_of(cell: usize) -> Range<usize> {
    let start = cell.saturating_mul(CELL_STEP);
    start..start.saturating_add(CELL_STEP)
}

/// Refuses what could block, change or be written to.
fn is_readable(file: &File, found: &Stat) -> Result<(), WindowError> {
    let flags =
        fcntl_getfl(file).map_err(|error| WindowError::on("look at a descriptor")(error.into()))?;
    let regular = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
    if regular && flags & OFlags::RWMODE == OFlags::RDONLY && !flags.contains(OFlags::PATH) {
        return Ok(());
    }
    Err(WindowError::NotReadOnly)
}
