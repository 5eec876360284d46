//! Descriptors that the crate `vhost` lends as numbers.
#![expect(
    unsafe_code,
    reason = "A number says nothing of whose descriptor it is"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// What `lent` holds open.
pub(crate) fn borrow(lent: &dyn AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: `lent` owns the descriptor and is borrowed for as long, so that it is not closed
    // meanwhile.
    unsafe { BorrowedFd::borrow_raw(lent.as_raw_fd()) }
}

/// Another descriptor of what `lent` holds open.
///
/// # Errors
/// When the process has too many.
pub(super) fn duplicate(lent: &dyn AsRawFd) -> io::Result<OwnedFd> {
    borrow(lent).try_clone_to_owned()
}
