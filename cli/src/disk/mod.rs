//! The images of a slot: checked, locked and opened before a machine is made.
//!
//! The lock is an open-file-description lock on the image itself. It belongs to the open file, so
//! the machine's disk thread keeps it, and it is gone when the process is, however that ended.

mod copy;
mod create;
mod lock;
mod open;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub(crate) use self::create::mkfs_program;
pub(crate) use self::lock::{Locking, try_lock};
pub(crate) use self::open::{Presence, inspect, open};
pub(crate) use store::holder::Holder;

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// The image is absent, and nothing says how to make it.
    #[error("Disk {id}: {} does not exist: create it or correct the path", path.display())]
    Missing {
        /// The disk.
        id: String,
        /// The image.
        path: PathBuf,
    },
    /// The image is a link to nothing.
    #[error(
        "Disk {id}: {} is a link to {}, which does not exist: assign a state or remove the link",
        path.display(),
        target.display()
    )]
    Dangling {
        /// The disk.
        id: String,
        /// The link.
        path: PathBuf,
        /// Where it points.
        target: PathBuf,
    },
    /// The directory of an image that is to be made is absent.
    #[error("Disk {id}: directory {} does not exist: create it with `mkdir -p`", directory.display())]
    NoDirectory {
        /// The disk.
        id: String,
        /// The directory.
        directory: PathBuf,
    },
    /// The path is something that holds no image.
    #[error("Disk {id}: {} is {found}: expected a raw image file or a block device", path.display())]
    Kind {
        /// The disk.
        id: String,
        /// The path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// The size is not one a disk can have.
    #[error(
        "Disk {id}: {} has {bytes} bytes: expected a multiple of 512, at least 512; \
         the image is damaged or not raw",
        path.display()
    )]
    Size {
        /// The disk.
        id: String,
        /// The image.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The process may not open the image.
    #[error(
        "Disk {id}: no permission to open {} for {mode}: run as its owner, or give this user access",
        path.display()
    )]
    Denied {
        /// The disk.
        id: String,
        /// The image.
        path: PathBuf,
        /// What for.
        mode: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Someone else has the image.
    #[error("Disk {id}: {} is locked by {holder}: stop that first", path.display())]
    Locked {
        /// The disk.
        id: String,
        /// The image.
        path: PathBuf,
        /// Who.
        holder: Holder,
    },
    /// The file system has no locks.
    #[error(
        "Disk {id}: the file system of {} does not lock files: a writable disk must not lie there",
        path.display()
    )]
    NoLocks {
        /// The disk.
        id: String,
        /// The image.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The image could not be made; nothing of it is left.
    #[error("Disk {id}: failed to {action} for the new image {}", path.display())]
    Create {
        /// The disk.
        id: String,
        /// The image.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The file system of a new image could not be made; nothing of it is left.
    #[error("Disk {id}: mkfs.ext4 failed for the new image {}: {output}", path.display())]
    Mkfs {
        /// The disk.
        id: String,
        /// The image.
        path: PathBuf,
        /// What it printed.
        output: String,
    },
    /// There is no mkfs.ext4.
    #[error(
        "Disk {id}: mkfs.ext4 is needed to make {} and is not installed: install e2fsprogs, \
         or set `data.template`",
        path.display()
    )]
    NoMkfs {
        /// The disk.
        id: String,
        /// The image.
        path: PathBuf,
    },
    /// The template does not fit the size that was asked for.
    #[error(
        "Disk {id}: template {} has {have_mib} MiB, `data.size` says {want_mib} MiB: \
         a template is not shrunk, raise `data.size` or remove it",
        template.display()
    )]
    TemplateTooLarge {
        /// The disk.
        id: String,
        /// The template.
        template: PathBuf,
        /// Its size, rounded up.
        have_mib: u64,
        /// What was asked for.
        want_mib: u64,
    },
    /// Anything else that the host said no to.
    #[error("Disk {id}: failed to {action} {}", path.display())]
    Host {
        /// The disk.
        id: String,
        /// The image.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}
