//! Calls of the host that Rust cannot check.
#![allow(unsafe_code, reason = "The one module of this crate that may")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use vm_memory::VolatileSlice;

/// Buffers for one call: `IOV_MAX`.
const MAX_BUFFERS: usize = 1024;

/// What Linux reads ahead at once, 128 KiB, in buffers of a page.
const FEW_BUFFERS: usize = 32;

/// Reads from `file` at `offset` straight into guest memory, until the buffers are full or the file
/// ends. Returns how much was read, in bytes.
pub(crate) fn read_at<'a>(
    file: BorrowedFd<'_>,
    buffers: impl Iterator<Item = VolatileSlice<'a>> + Clone,
    offset: u64,
) -> io::Result<usize> {
    let mut done = 0_usize;
    loop {
        let mut left = left_of(buffers.clone(), done);
        let Some(first) = left.next() else {
            return Ok(done);
        };
        let at = offset.checked_add(done as u64);
        let at = at.and_then(|at| libc::off_t::try_from(at).ok());
        let at = at.ok_or(io::ErrorKind::InvalidInput)?;
        let (read, asked) = match left.next() {
            None => read_one(file, &first, at),
            Some(second) => read_several(file, [first, second].into_iter().chain(left), at),
        };
        match usize::try_from(read) {
            Ok(0) => return Ok(done),
            Ok(read) => {
                done = done.saturating_add(read);
                if read < asked && ends_within_a_sector(offset, done) {
                    return Ok(done);
                }
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Reads into one buffer; returns what the call did, and how much was asked for.
fn read_one(
    file: BorrowedFd<'_>,
    buffer: &VolatileSlice<'_>,
    at: libc::off_t,
) -> (libc::ssize_t, usize) {
    let guard = buffer.ptr_guard_mut();
    let (file, to, len) = (file.as_raw_fd(), guard.as_ptr(), guard.len());
    // Called without the C library's preparations for a thread that is cancelled: nobody does that.
    // SAFETY: `guard` keeps these bytes of guest memory mapped until after the call; nothing in this
    // process refers to them by a reference.
    let read = unsafe { libc::syscall(libc::SYS_pread64, file, to, len, at) };
    (libc::ssize_t::try_from(read).unwrap_or(-1), len)
}

/// Reads into as many buffers as one call takes, as [`read_one`] does.
fn read_several<'a>(
    file: BorrowedFd<'_>,
    buffers: impl Iterator<Item = VolatileSlice<'a>>,
    at: libc::off_t,
) -> (libc::ssize_t, usize) {
    let mut guards = Vec::with_capacity(FEW_BUFFERS);
    guards.extend(buffers.take(MAX_BUFFERS).map(|slice| slice.ptr_guard_mut()));
    let vectors: Vec<libc::iovec> = guards
        .iter()
        .map(|guard| libc::iovec {
            iov_base: guard.as_ptr().cast(),
            iov_len: guard.len(),
        })
        .collect();
    let asked: usize = vectors.iter().map(|vector| vector.iov_len).sum();
    let count = libc::c_int::try_from(vectors.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: each vector is a slice of guest memory that `guards` keeps mapped until after
    // the call; nothing in this process refers to those bytes by a reference.
    let read = unsafe { libc::preadv(file.as_raw_fd(), vectors.as_ptr(), count, at) };
    (read, asked)
}

/// Whether a read that began at `offset` and came to `done` bytes has met the end of the file: storage
/// that fails in the middle of a read does so between sectors. That saves asking once more for each
/// small file.
fn ends_within_a_sector(offset: u64, done: usize) -> bool {
    let end = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
    !end.is_multiple_of(512)
}

/// What is left of `buffers` after `done` bytes.
fn left_of<'a>(
    buffers: impl Iterator<Item = VolatileSlice<'a>>,
    done: usize,
) -> impl Iterator<Item = VolatileSlice<'a>> {
    let mut skip = done;
    buffers.filter_map(move |slice| {
        let taken = skip.min(slice.len());
        skip -= taken;
        slice.offset(taken).ok().filter(|left| !left.is_empty())
    })
}

/// Closes every descriptor above standard error but `keep`.
pub(crate) fn close_others(keep: Option<i32>) -> io::Result<()> {
    let Some(keep) = keep
        .and_then(|fd| u32::try_from(fd).ok())
        .filter(|&fd| fd > 2)
    else {
        return close_range(3, u32::MAX);
    };
    if keep > 3 {
        close_range(3, keep - 1)?;
    }
    close_range(keep.saturating_add(1), u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: called before this process has opened anything of its own: no object in it owns one
    // of these descriptors, which came by inheritance.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if closed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The descriptor `fd` that this process has inherited, such as a socket that whoever started it
/// made. To be called once for a number, before the process opens anything of its own.
///
/// # Errors
/// When there is none.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: asks about a number, whatever it is.
    if fd < 0 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    // A duplicate, so that the number itself, which may be standard input, keeps its owner.
    // SAFETY: as above.
    let own = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if own < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `own` was made by the call above and is nowhere else.
    Ok(unsafe { OwnedFd::from_raw_fd(own) })
}

/// Moves the process into namespaces of its own.
pub(crate) fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: this is unsafe for what unsharing the table of descriptors does to their owners.
    // Nobody asks for that here.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Goes on in a child, and has this process wait for it and end as it does.
pub(crate) fn fork_and_wait() -> io::Result<()> {
    // SAFETY: the caller keeps to the contract of `run`: there is no other thread, so that no lock
    // is held in the copy by a thread that is not in it.
    let child = unsafe { libc::fork() };
    match child {
        0 => return Ok(()),
        1.. => {}
        _ => return Err(io::Error::last_os_error()),
    }
    // The connection belongs to the child: it must break when the child ends.
    // SAFETY: this process uses no descriptor any more, and ends without running destructors.
    unsafe { libc::syscall(libc::SYS_close_range, 0_u32, u32::MAX, 0) };
    let mut status = 0;
    loop {
        // SAFETY: `status` is a place for an integer.
        let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
        if ended == child {
            break;
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            status = -1;
            break;
        }
    }
    let code = if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    };
    // SAFETY: ends the process at once; nothing is left to be cleaned up.
    unsafe { libc::_exit(code) }
}
