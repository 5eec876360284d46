//! Entries of directories.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::attr::Attr;

/// `struct fuse_entry_out`, the reply to `Lookup` and part of one to `Readdirplus`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EntryOut {
    /// The inode, or zero: there is none of this name.
    pub nodeid: u64,
    /// Tells inodes with the same `nodeid` apart.
    pub generation: u64,
    /// How long the name may be cached, in seconds.
    pub entry_valid: u64,
    /// How long the attributes may be cached, in seconds.
    pub attr_valid: u64,
    /// Nanoseconds of `entry_valid`.
    pub entry_valid_nsec: u32,
    /// Nanoseconds of `attr_valid`.
    pub attr_valid_nsec: u32,
    /// The attributes.
    pub attr: Attr,
}

/// `struct fuse_dirent` without its name.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Dirent {
    /// Inode number that programs see.
    pub ino: u64,
    /// Where the listing goes on after this entry.
    pub off: u64,
    /// Length of the name, in bytes, without padding.
    pub namelen: u32,
    /// Type, `DT_*`.
    pub kind: u32,
}

/// Length of an entry with a name of `name_len` bytes, `FUSE_DIRENT_SIZE`: padded to eight bytes.
pub const fn dirent_len(name_len: usize) -> usize {
    (size_of::<Dirent>() + name_len).next_multiple_of(8)
}
