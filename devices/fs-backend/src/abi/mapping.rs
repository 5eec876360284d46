//! Mapping parts of files into the DAX window.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `FUSE_ATTR_DAX`: the file is to be read through the window.
pub const ATTR_DAX: u32 = 1 << 1;

/// `FUSE_SETUPMAPPING_FLAG_WRITE`.
pub const SETUP_WRITE: u64 = 1 << 0;
/// `FUSE_SETUPMAPPING_FLAG_READ`.
pub const SETUP_READ: u64 = 1 << 1;

/// Mappings in one request to remove them: as many as fit a page, as in Linux.
pub const MAX_REMOVALS: u32 = 4096 / 16;

/// `struct fuse_setupmapping_in`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetupMappingIn {
    /// The handle; not used, files are known by their node.
    pub fh: u64,
    /// From where in the file, in bytes.
    pub foffset: u64,
    /// How much, in bytes.
    pub len: u64,
    /// [`SETUP_READ`], [`SETUP_WRITE`].
    pub flags: u64,
    /// Where in the window, in bytes.
    pub moffset: u64,
}

/// `struct fuse_removemapping_in`, followed by that many [`RemoveMappingOne`].
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RemoveMappingIn {
    /// How many follow.
    pub count: u32,
}

/// `struct fuse_removemapping_one`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RemoveMappingOne {
    /// Where in the window, in bytes.
    pub moffset: u64,
    /// How much, in bytes.
    pub len: u64,
}
