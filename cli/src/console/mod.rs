//! Connects a terminal, or a pipe, to the serial console of a guest.
//!
//! [`terminal`] makes the terminal raw and always brings it back, [`escape`] finds the key that
//! detaches, [`relay`] moves the bytes. `console` and `run --console` share all of it.

mod escape;
mod relay;
mod terminal;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

pub(crate) use self::relay::{End, block_signals, relay};

/// Connects to the console socket at `path`.
///
/// # Errors
/// When nothing listens there.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}
