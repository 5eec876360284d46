//! The system call that no library wraps.
#![allow(unsafe_code, reason = "The one module of this program that may")]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Gives the kernel the next one, which runs after a reboot of the kind `RB_KEXEC`: kexec_file_load(2).
///
/// # Errors
/// What the kernel says.
pub(crate) fn kexec_file_load(kernel: &File, initrd: &File, cmdline: &CStr) -> io::Result<()> {
    let cmdline = cmdline.to_bytes_with_nul();
    // SAFETY: the kernel reads `cmdline.len()` bytes at its address, which are valid and end with a
    // NUL as it wants them, and keeps none of the arguments.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initrd.as_raw_fd(),
            cmdline.len(),
            cmdline.as_ptr(),
            0_u64,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
