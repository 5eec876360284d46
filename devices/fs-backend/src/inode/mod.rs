//! What the guest holds references to: the inodes it has looked up.
//!
//! An inode is known by its *identity* (device, inode number, time of creation) and found again by
//! its *path*, kept as a parent and a name. No descriptor is held for it. Names are not trusted to
//! stay: whoever opens an inode by its path compares the identity ([`Identity`]) and treats
//! anything else as [`Stale`].
//!
//! An inode stays as long as the guest references it or one of its children: the path of a child
//! leads through it. Not for: descriptors, attributes, the file system.

mod identity;
mod journal;
mod table;
#[cfg(test)]
mod tests;

pub use self::identity::{Identity, Kind};
pub use self::journal::Journal;
pub use self::table::{MAX_NODES, Node, Path, Removed, Saved, Table, TableError};

use crate::abi::ROOT_ID;

/// Name of an inode towards the guest: its place in the table below, a generation above.
///
/// The generation makes an id that was forgotten, or that an earlier backend gave, unlikely to mean
/// anything: it counts on from a random number. The root is always [`ROOT_ID`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u64);

impl NodeId {
    /// The directory that is shared.
    pub const ROOT: Self = Self(ROOT_ID);

    /// As the guest names it. Whether it means anything is for the table to say.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// As the guest is told.
    pub const fn raw(self) -> u64 {
        self.0
    }

    const fn new(index: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | index as u64)
    }

    /// Place in the table and generation.
    fn split(self) -> (u32, u32) {
        if self == Self::ROOT {
            return (0, 0);
        }
        let [a, b, c, d, e, f, g, h] = self.0.to_be_bytes();
        (
            u32::from_be_bytes([e, f, g, h]),
            u32::from_be_bytes([a, b, c, d]),
        )
    }
}
