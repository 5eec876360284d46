//! Open-file-description locks. They end with the process, so a crash leaves none: at most for as long
//! as the kernel takes to complete what a killed process had in flight by io_uring, for which it keeps
//! the file open.

use std::fs::File;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::holder::Holder;

/// How long a lock that no process has is waited for.
const LINGER: Duration = Duration::from_secs(5);

/// Between two looks at it.
const AGAIN: Duration = Duration::from_millis(20);

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

/// As [`try_lock`], but waits for a while for a lock whose process is gone.
///
/// # Errors
/// As [`try_lock`].
pub fn lock(file: &File, access: Access) -> io::Result<Locking> {
    lingering(file, || {
        let locking = try_lock(file, access)?;
        Ok((matches!(locking, Locking::Busy), locking))
    })
}

/// As [`is_busy`], but waits for a while for a lock whose process is gone.
///
/// # Errors
/// As [`is_busy`].
pub(crate) fn is_used(file: &File, access: Access) -> io::Result<bool> {
    lingering(file, || {
        let busy = is_busy(file, access)?;
        Ok((busy, busy))
    })
}

/// Asks again while the file is locked, which the first answer says, and nobody is seen to hold the lock.
fn lingering<T>(file: &File, ask: impl Fn() -> io::Result<(bool, T)>) -> io::Result<T> {
    let began = Instant::now();
    loop {
        let (busy, answer) = ask()?;
        if !busy || began.elapsed() > LINGER || Holder::find(file) != Holder::Unknown {
            return Ok(answer);
        }
        // Locks with a time limit do not exist, and nothing tells when one ends.
        thread::sleep(AGAIN);
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

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    /// Has a socket keep the file open, which no process has open then, as after a kill.
    fn leave_to_a_socket(file: File) -> (UnixStream, UnixStream) {
        let pair = UnixStream::pair().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [file.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(
            &pair.0,
            &[IoSlice::new(b"x")],
            &mut ancillary,
            SendFlags::empty(),
        )
        .unwrap();
        pair
    }

    #[test]
    fn lock_that_no_process_has_any_more_is_waited_for() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let first = path.reopen().unwrap();
        assert!(matches!(
            try_lock(&first, Access::Exclusive),
            Ok(Locking::Held)
        ));
        let sockets = leave_to_a_socket(first);
        let second = path.reopen().unwrap();
        let busy = try_lock(&second, Access::Exclusive);
        assert!(matches!(busy, Ok(Locking::Busy)), "{busy:?}");
        let closer = thread::spawn(move || drop(sockets));
        let held = lock(&second, Access::Exclusive);
        assert!(matches!(held, Ok(Locking::Held)), "{held:?}");
        closer.join().unwrap();
    }

    #[test]
    fn lock_that_a_process_has_is_not_waited_for() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let (first, second) = (path.reopen().unwrap(), path.reopen().unwrap());
        assert!(matches!(
            try_lock(&first, Access::Exclusive),
            Ok(Locking::Held)
        ));
        assert_ne!(Holder::find(&second), Holder::Unknown);
        assert!(is_used(&second, Access::Exclusive).unwrap());
    }
}
