//! Beginning a session.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Version of the protocol, `FUSE_KERNEL_VERSION`.
pub const MAJOR: u32 = 7;
/// Newest revision whose messages are known here: 7.39 brought `FUSE_STATX`.
pub const MINOR: u32 = 39;
/// Oldest revision a driver may have: 7.31 is that of Linux 5.4, the first with virtio-fs.
pub const MIN_MINOR: u32 = 31;

/// Reads may overlap.
pub const ASYNC_READ: u64 = 1 << 0;
/// Attributes that show a change drop cached pages; cached listings are checked.
pub const AUTO_INVAL_DATA: u64 = 1 << 12;
/// Listings may come with attributes.
pub const DO_READDIRPLUS: u64 = 1 << 13;
/// The driver decides when a listing is worth attributes.
pub const READDIRPLUS_AUTO: u64 = 1 << 14;
/// Direct reads may overlap.
pub const ASYNC_DIO: u64 = 1 << 15;
/// `ENOSYS` for an open means that no file needs one.
pub const NO_OPEN_SUPPORT: u64 = 1 << 17;
/// Lookups and listings in one directory may overlap.
pub const PARALLEL_DIROPS: u64 = 1 << 18;
/// `max_pages` counts.
pub const MAX_PAGES: u64 = 1 << 22;
/// Targets of links may be cached.
pub const CACHE_SYMLINKS: u64 = 1 << 23;
/// `ENOSYS` for an open means that no directory needs one.
pub const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
/// `map_alignment` counts.
pub const MAP_ALIGNMENT: u64 = 1 << 26;
/// `flags2` counts.
pub const INIT_EXT: u64 = 1 << 30;
/// Attributes say which files are to be read through the window.
pub const HAS_INODE_DAX: u64 = 1 << 33;
/// Files without cache may be mapped.
pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;

/// `struct fuse_init_in`, which is shorter before 7.36.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InitIn {
    /// Version.
    pub major: u32,
    /// Revision.
    pub minor: u32,
    /// How far the driver reads ahead at most, in bytes.
    pub max_readahead: u32,
    /// What the driver can do: bits 0 to 31.
    pub flags: u32,
    /// What the driver can do: bits 32 to 63, with [`INIT_EXT`].
    pub flags2: u32,
    /// Not used.
    pub unused: [u32; 11],
}

/// Length of [`InitIn`] before 7.36, in bytes.
pub const INIT_IN_SHORT: usize = 16;

impl InitIn {
    /// From the body of a request, which may be of the short kind.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut init = Self::new_zeroed();
        let len = body.len().min(size_of::<Self>());
        if len < INIT_IN_SHORT {
            return None;
        }
        init.as_mut_bytes()
            .get_mut(..len)?
            .copy_from_slice(body.get(..len)?);
        Some(init)
    }

    /// What the driver can do.
    pub fn features(&self) -> u64 {
        let low = u64::from(self.flags);
        if low & INIT_EXT == 0 {
            low
        } else {
            low | u64::from(self.flags2) << 32
        }
    }
}

/// `struct fuse_init_out`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InitOut {
    /// Version.
    pub major: u32,
    /// Revision.
    pub minor: u32,
    /// How far the driver may read ahead, in bytes.
    pub max_readahead: u32,
    /// What both can do: bits 0 to 31.
    pub flags: u32,
    /// How many requests may wait in the background.
    pub max_background: u16,
    /// From how many on the driver slows down.
    pub congestion_threshold: u16,
    /// Longest write, in bytes; the driver refuses less than a page.
    pub max_write: u32,
    /// Granularity of time stamps, in nanoseconds.
    pub time_gran: u32,
    /// Longest request, in pages, with [`MAX_PAGES`].
    pub max_pages: u16,
    /// Alignment of mappings in the DAX window, as a power of two, with [`MAP_ALIGNMENT`].
    pub map_alignment: u16,
    /// What both can do: bits 32 to 63.
    pub flags2: u32,
    /// Depth of stacked file systems for passthrough; there is none.
    pub max_stack_depth: u32,
    /// How long the driver waits for replies; no limit.
    pub request_timeout: u16,
    /// Not used.
    pub unused: [u16; 11],
}
