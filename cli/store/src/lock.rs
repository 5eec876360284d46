//! Open-file-description locks. They end with the process, so a crash leaves none.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// What a lock excludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Writers.
    Shared,
    /// Everybody.
    Exclusive,
}

/// How an attempt to lock ended.
#[derive(Debug)]
pub enum Locking {
    /// The file is ours as long as it is open.
    Held,
    /// Another open file excludes us.
    Busy,
    /// The file system has no locks.
    Unsupported(io::Error),
}

/// Locks the whole file without waiting: shared for [`Access::Shared`], else exclusively.
///
/// # Errors
/// When the host refuses for a reason that says nothing about other users of the file.
pub fn try_lock(file: &File, access: Access) -> io::Result<Locking> {
    let kind = match access {
        Access::Shared => libc::F_RDLCK,
        Access::Exclusive => libc::F_WRLCK,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(kind)?)) {
        Ok(_) => Ok(Locking::Held),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(Locking::Busy),
        Err(errno @ (Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL)) => {
            Ok(Locking::Unsupported(errno.into()))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Whether locking for `access` would fail now. Takes nothing.
///
/// # Errors
/// When the file system does not say.
pub fn is_busy(file: &File, access: Access) -> io::Result<bool> {
    let kind = match access {
        Access::Shared => libc::F_RDLCK,
        Access::Exclusive => libc::F_WRLCK,
    };
    let mut lock = whole_file(kind)?;
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// From byte 0 to the end, wherever that moves. The kernel wants pid 0 for these locks.
fn whole_file(kind: libc::c_int) -> io::Result<libc::flock> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    Ok(libc::flock {
        l_type: kind.try_into().map_err(invalid)?,
        l_whence: libc::SEEK_SET.try_into().map_err(invalid)?,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    })
}
