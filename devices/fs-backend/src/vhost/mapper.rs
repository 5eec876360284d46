//! The way to the frontend, which has the guest's memory: `VHOST_USER_BACKEND_SHMEM_MAP` and its
//! opposite.

use std::fmt;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::io::Errno;
use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags};
use vhost::vhost_user::{Backend as Frontend, VhostUserFrontendReqHandler as _};

use crate::server::{Mapper, Part};

/// Regions of shared memory: the window, which has the number 0 (virtio 1.2 §5.11.6.4).
pub(super) const WINDOW_REGIONS: u32 = 1;

const WINDOW: u8 = 0;

/// Asks the frontend to map.
pub(super) struct ToFrontend(Frontend);

impl ToFrontend {
    pub(super) fn new(frontend: Frontend) -> Self {
        Self(frontend)
    }
}

impl fmt::Debug for ToFrontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToFrontend").finish_non_exhaustive()
    }
}

impl Mapper for ToFrontend {
    fn map(&self, file: BorrowedFd<'_>, part: Part) -> Result<(), Errno> {
        let asked = VhostUserMMap {
            shmid: WINDOW,
            fd_offset: part.file_offset,
            shm_offset: part.offset,
            len: part.len,
            flags: VhostUserMMapFlags::empty().bits(),
            ..VhostUserMMap::default()
        };
        // The crate says no more than that it failed.
        let mapped = self.0.shmem_map(&asked, &file.as_raw_fd());
        mapped.map(drop).map_err(|_| Errno::IO)
    }

    fn unmap(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let asked = VhostUserMMap {
            shmid: WINDOW,
            shm_offset: offset,
            len,
            ..VhostUserMMap::default()
        };
        self.0.shmem_unmap(&asked).map(drop).map_err(|_| Errno::IO)
    }
}
