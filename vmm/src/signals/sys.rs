//! Opening a signalfd.
#![expect(unsafe_code, reason = "signal sets have no safe interface")]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::FromRawFd;

/// A non-blocking, close-on-exec signalfd for `signals`.
pub(super) fn signalfd(signals: &[libc::c_int]) -> io::Result<File> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set it is given; `sigaddset` then only changes it.
    let set: libc::sigset_t = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    };
    // SAFETY: `set` is initialised and lives across the call.
    let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned, is checked, and has no other owner.
    Ok(unsafe { File::from_raw_fd(fd) })
}
