//! The calls that freeze and thaw.

use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc::c_int;

mod raw {
    nix::ioctl_readwrite!(fifreeze, b'X', 119, nix::libc::c_int);
    nix::ioctl_readwrite!(fithaw, b'X', 120, nix::libc::c_int);
}

/// Writes everything of the file system of `place` to its disk and keeps writers waiting.
pub(super) fn freeze(place: &File) -> Result<(), Errno> {
    let mut ignored: c_int = 0;
    // SAFETY: FIFREEZE neither reads nor writes through its pointer; `ignored` is one int and
    // outlives the call, and `place` is an open descriptor.
    unsafe { raw::fifreeze(place.as_raw_fd(), &raw mut ignored) }.map(drop)
}

/// Lets writers of the file system of `place` go on.
pub(super) fn thaw(place: &File) -> Result<(), Errno> {
    let mut ignored: c_int = 0;
    // SAFETY: as in `freeze`.
    unsafe { raw::fithaw(place.as_raw_fd(), &raw mut ignored) }.map(drop)
}

/// Takes a descriptor that `accept4` has just returned.
pub(super) fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the only caller passes what `accept4` returned one line before; it is open and
    // nobody else's, so it is closed exactly once.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
