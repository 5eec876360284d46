//! Descriptors that the crate `vhost` lends as numbers.
#![expect(
    unsafe_code,
    reason = "A number says nothing of whose descriptor it is"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Another descriptor of what `lent` holds open.
///
/// # Errors
/// When the process has too many.
pub(super) fn duplicate(lent: &dyn AsRawFd) -> io::Result<OwnedFd> {
    // SAFETY: `lent` owns the descriptor and is borrowed for longer than this call, so that it is
    // not closed meanwhile.
    let borrowed = unsafe { BorrowedFd::borrow_raw(lent.as_raw_fd()) };
    borrowed.try_clone_to_owned()
}
