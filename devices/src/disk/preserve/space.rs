//! Whether the copy's file system has room for it, and for the guest meanwhile.

use std::fs::File;

use rustix::fs::{fstat, fstatvfs};

use super::{Method, Preservation, PreserveError};

/// What a copy leaves on its file system: meanwhile the guest writes to holes of its image, and to
/// blocks that are shared now, and each takes new space.
pub(super) const RESERVE_BYTES: u64 = 16 << 20;

impl Preservation {
    /// Whether `target`'s file system has room for all of the copy.
    ///
    /// # Errors
    /// When it has not.
    pub fn check_room(&self, target: &File) -> Result<(), PreserveError> {
        let most = match self.method {
            // Blocks are counted in units of 512 bytes, whatever the file system's are.
            Method::Copy { .. } => fstat(&*self.image).map_or(0, |image| image.st_blocks),
            Method::Share => 0,
        };
        let most = u64::try_from(most).unwrap_or_default().saturating_mul(512);
        room(target, most.min(self.size))
    }
}

/// Whether `target`'s file system has room for so many bytes more.
pub(super) fn room(target: &File, bytes: u64) -> Result<(), PreserveError> {
    let needed = bytes.saturating_add(RESERVE_BYTES);
    match fstatvfs(target) {
        // Without blocks there is no limit: a tmpfs may have none.
        Ok(space) if space.f_blocks != 0 => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            if free < needed {
                return Err(PreserveError::NoRoom {
                    needed: needed.div_ceil(1 << 20),
                    free: free >> 20,
                });
            }
            Ok(())
        }
        // Writing will tell.
        Ok(_) | Err(_) => Ok(()),
    }
}
