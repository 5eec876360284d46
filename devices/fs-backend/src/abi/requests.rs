//! Bodies of requests that are a fixed structure, and small replies.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct fuse_forget_in`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ForgetIn {
    /// How many references are dropped.
    pub nlookup: u64,
}

/// `struct fuse_batch_forget_in`, followed by that many [`ForgetOne`].
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BatchForgetIn {
    /// How many follow.
    pub count: u32,
    /// Not used.
    pub dummy: u32,
}

/// `struct fuse_forget_one`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ForgetOne {
    /// The inode.
    pub nodeid: u64,
    /// How many references are dropped.
    pub nlookup: u64,
}

/// `struct fuse_open_in`, for files and directories.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OpenIn {
    /// Flags of `open`.
    pub flags: u32,
    /// `FUSE_OPEN_*`.
    pub open_flags: u32,
}

/// `struct fuse_open_out`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OpenOut {
    /// The handle, which further requests repeat; always zero here.
    pub fh: u64,
    /// `FOPEN_*`.
    pub open_flags: u32,
    /// For passthrough; there is none.
    pub backing_id: i32,
}

/// Reads go past the driver's cache.
pub const FOPEN_DIRECT_IO: u32 = 1 << 0;
/// What is cached stays.
pub const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// The listing may be cached.
pub const FOPEN_CACHE_DIR: u32 = 1 << 3;

/// `struct fuse_read_in`, for files and directories.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReadIn {
    /// The handle; not used, files are known by their node.
    pub fh: u64,
    /// Where to begin: in bytes, or as a listing gave it.
    pub offset: u64,
    /// How much at most, in bytes.
    pub size: u32,
    /// `FUSE_READ_*`.
    pub read_flags: u32,
    /// For locks; not used.
    pub lock_owner: u64,
    /// Flags of the open file.
    pub flags: u32,
    /// Not used.
    pub padding: u32,
}

/// `struct fuse_access_in`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AccessIn {
    /// `R_OK`, `W_OK`, `X_OK`.
    pub mask: u32,
    /// Not used.
    pub padding: u32,
}

/// `struct fuse_getxattr_in`: before a name for `Getxattr`, alone for `Listxattr`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GetxattrIn {
    /// Room for the value, in bytes; zero asks for its length.
    pub size: u32,
    /// Not used.
    pub padding: u32,
}

/// `struct fuse_getxattr_out`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GetxattrOut {
    /// Length, in bytes.
    pub size: u32,
    /// Not used.
    pub padding: u32,
}

/// `struct fuse_lseek_in`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LseekIn {
    /// The handle; not used.
    pub fh: u64,
    /// Where to begin, in bytes.
    pub offset: u64,
    /// `SEEK_DATA` or `SEEK_HOLE`.
    pub whence: u32,
    /// Not used.
    pub padding: u32,
}

/// `struct fuse_lseek_out`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LseekOut {
    /// Where it is, in bytes.
    pub offset: u64,
}

/// `struct fuse_statx_in`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StatxIn {
    /// `FUSE_GETATTR_*`.
    pub getattr_flags: u32,
    /// Not used.
    pub reserved: u32,
    /// The handle; not used.
    pub fh: u64,
    /// `AT_STATX_*`.
    pub sx_flags: u32,
    /// Which fields are wanted.
    pub sx_mask: u32,
}
