//! Locks of images: the store's, by what a disk is used for.

use std::fs::File;
use std::io;

pub(crate) use store::lock::Locking;
use store::lock::{self, Access};

use crate::resolve::Use;

/// Locks the whole file without waiting: shared for [`Use::ReadOnly`], else exclusively.
///
/// # Errors
/// When the host refuses for a reason that says nothing about other users of the file.
pub(crate) fn try_lock(file: &File, usage: Use) -> io::Result<Locking> {
    lock::try_lock(file, access(usage))
}

/// As [`try_lock`], but waits for a while for the lock of a process that was killed.
///
/// # Errors
/// As [`try_lock`].
pub(super) fn lock(file: &File, usage: Use) -> io::Result<Locking> {
    lock::lock(file, access(usage))
}

/// Whether locking for `usage` would fail now. Takes nothing.
///
/// # Errors
/// When the file system does not say.
pub(super) fn is_busy(file: &File, usage: Use) -> io::Result<bool> {
    lock::is_busy(file, access(usage))
}

fn access(usage: Use) -> Access {
    match usage {
        Use::ReadOnly => Access::Shared,
        Use::Exclusive => Access::Exclusive,
    }
}
