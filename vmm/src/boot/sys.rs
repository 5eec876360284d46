//! Reading straight into guest memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use vm_memory::VolatileSlice;

/// `pread` into `target` from `offset` on; returns the bytes read, 0 at the end of the file.
///
/// # Errors
/// What the host says; a signal is not an error.
pub(super) fn read_at(file: &File, target: &VolatileSlice<'_>, offset: u64) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    let memory = target.ptr_guard_mut();
    loop {
        // SAFETY: the guard keeps exactly these bytes of guest memory mapped for the duration of the
        // call. No reference to them exists: the kernel alone writes there, as a device would.
        let read = unsafe {
            let start = memory.as_ptr().cast();
            libc::pread(file.as_raw_fd(), start, target.len(), offset)
        };
        match usize::try_from(read) {
            Ok(read) => return Ok(read),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
