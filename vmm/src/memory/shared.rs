//! Guest RAM that other processes can map.

use std::fs::File;
use std::io;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::MemoryError;

/// A memfd of `bytes`, all of them holes. Sealed: whoever gets the descriptor could otherwise
/// shrink it, and the next access of this process would be fatal.
pub(super) fn file(bytes: u64) -> Result<File, MemoryError> {
    let failed = |action| move |source: io::Error| MemoryError::Shared { action, source };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("guest-ram", flags)
        .map(File::from)
        .map_err(|error| failed("create")(error.into()))?;
    file.set_len(bytes).map_err(failed("size"))?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .map_err(|error| failed("seal")(error.into()))?;
    Ok(file)
}
