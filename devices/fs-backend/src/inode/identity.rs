//! What makes an inode the same inode.

use serde::{Deserialize, Serialize};

/// What makes an inode the same inode, however it is reached.
///
/// File systems reuse inode numbers, often at once. The time of creation tells a new inode from the
/// old one of the same number; where a file system does not keep it, the time of the last change
/// stands in, so that a change looks like another inode: the guest then looks it up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Device: major number above, minor below.
    pub device: u64,
    /// Inode number.
    pub ino: u64,
    /// Creation, in nanoseconds since the epoch.
    pub born: i64,
    /// Type.
    pub kind: Kind,
}

/// Type of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, a pipe or a socket: shown, never opened.
    Special,
}
