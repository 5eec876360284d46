//! Attributes of inodes and of the file system.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct fuse_attr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Attr {
    /// Inode number that programs see.
    pub ino: u64,
    /// Size, in bytes.
    pub size: u64,
    /// Space used, in units of 512 bytes.
    pub blocks: u64,
    /// Last access, in seconds since the epoch.
    pub atime: u64,
    /// Last change of the data.
    pub mtime: u64,
    /// Last change of anything.
    pub ctime: u64,
    /// Nanoseconds of `atime`.
    pub atimensec: u32,
    /// Nanoseconds of `mtime`.
    pub mtimensec: u32,
    /// Nanoseconds of `ctime`.
    pub ctimensec: u32,
    /// Type and permissions.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device that a special file names, as `new_encode_dev` has it.
    pub rdev: u32,
    /// Preferred size of reads, in bytes.
    pub blksize: u32,
    /// `FUSE_ATTR_*`.
    pub flags: u32,
}

/// `struct fuse_attr_out`, the reply to `Getattr`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AttrOut {
    /// How long the attributes may be cached, in seconds.
    pub attr_valid: u64,
    /// Nanoseconds of that.
    pub attr_valid_nsec: u32,
    /// Not used.
    pub dummy: u32,
    /// The attributes.
    pub attr: Attr,
}

/// `struct fuse_sx_time`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SxTime {
    /// Seconds since the epoch.
    pub tv_sec: i64,
    /// Nanoseconds.
    pub tv_nsec: u32,
    /// Not used.
    pub reserved: i32,
}

/// `struct fuse_statx` and what precedes it: `struct fuse_statx_out`, the reply to `Statx`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StatxOut {
    /// How long the attributes may be cached, in seconds.
    pub attr_valid: u64,
    /// Nanoseconds of that.
    pub attr_valid_nsec: u32,
    /// Not used.
    pub flags: u32,
    /// Not used.
    pub spare: [u64; 2],
    /// Which fields are filled, `STATX_*`.
    pub mask: u32,
    /// Preferred size of reads, in bytes.
    pub blksize: u32,
    /// `STATX_ATTR_*`; none.
    pub attributes: u64,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Type and permissions.
    pub mode: u16,
    /// Not used.
    pub spare0: u16,
    /// Inode number.
    pub ino: u64,
    /// Size, in bytes.
    pub size: u64,
    /// Space used, in units of 512 bytes.
    pub blocks: u64,
    /// Which bits of `attributes` mean something; none.
    pub attributes_mask: u64,
    /// Last access.
    pub atime: SxTime,
    /// Creation.
    pub btime: SxTime,
    /// Last change of anything.
    pub ctime: SxTime,
    /// Last change of the data.
    pub mtime: SxTime,
    /// Device that a special file names.
    pub rdev_major: u32,
    /// Device that a special file names.
    pub rdev_minor: u32,
    /// Device; the driver puts its own.
    pub dev_major: u32,
    /// Device; the driver puts its own.
    pub dev_minor: u32,
    /// Not used.
    pub spare2: [u64; 14],
}

/// `struct fuse_kstatfs`, the reply to `Statfs`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StatfsOut {
    /// Size, in units of `frsize`.
    pub blocks: u64,
    /// Free.
    pub bfree: u64,
    /// Free for everyone.
    pub bavail: u64,
    /// Inodes.
    pub files: u64,
    /// Inodes that are free.
    pub ffree: u64,
    /// Preferred size of reads, in bytes.
    pub bsize: u32,
    /// Longest name, in bytes.
    pub namelen: u32,
    /// Unit of the counts, in bytes.
    pub frsize: u32,
    /// Not used.
    pub padding: u32,
    /// Not used.
    pub spare: [u32; 6],
}
