//! The system calls of the network card: vectored I/O on guest memory, and the tap's controls.
//! All `unsafe` code of the network card is here.
#![expect(
    unsafe_code,
    reason = "vectored I/O on guest memory and tap ioctls exist only as raw calls"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::{GuestAddress, GuestMemory, GuestMemoryError, Permissions, VolatileSlice};

use super::tap::Attached;
use crate::device::Memory;

/// Most entries one vectored call takes (`UIO_MAXIOV`).
pub(super) const IOVEC_MAX: usize = 1024;

/// One contiguous piece of guest memory, as the kernel wants it for vectored I/O.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Piece(libc::iovec);

// SAFETY: a piece is an address and a length; it is only dereferenced by the functions below, which
// take the `GuestPieces` that keeps the memory mapped, and guest memory may be accessed from any
// thread.
unsafe impl Send for Piece {}

/// Pieces of guest memory, in order. Keeps the memory mapped that they lie in.
pub(super) struct GuestPieces {
    memory: Memory,
    // Invariant: each piece was handed out by `memory` as a slice, so its whole range is mapped as
    // long as `memory` lives, and is written only by means that tolerate concurrent guest access.
    pieces: Vec<Piece>,
}

impl GuestPieces {
    pub(super) fn new(memory: Memory) -> Self {
        Self {
            memory,
            pieces: Vec::with_capacity(64),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn clear(&mut self) {
        self.pieces.clear();
    }

    /// Forgets the first `count` pieces.
    pub(super) fn drop_front(&mut self, count: usize) {
        self.pieces.drain(..count.min(self.pieces.len()));
    }

    /// Appends guest memory; more than one piece when it crosses from one region to the next.
    pub(super) fn push(
        &mut self,
        addr: GuestAddress,
        bytes: usize,
    ) -> Result<(), GuestMemoryError> {
        let slices = self
            .memory
            .get_slices(addr, bytes, Permissions::ReadWrite)?;
        for slice in slices {
            let slice = slice?;
            let guard = slice.ptr_guard_mut();
            self.pieces.push(Piece(libc::iovec {
                iov_base: guard.as_ptr().cast(),
                iov_len: slice.len(),
            }));
        }
        Ok(())
    }

    /// Writes all pieces to `fd` as one frame.
    pub(super) fn write_to(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        // More pieces than the kernel takes, or than an `int` counts, make it answer EINVAL.
        let count = libc::c_int::try_from(self.pieces.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `pieces` holds `count` iovecs, for `Piece` is a transparent wrapper, and each of
        // them is mapped guest memory by the invariant of `GuestPieces`; the kernel only reads it.
        let written = unsafe { libc::writev(fd.as_raw_fd(), self.pieces.as_ptr().cast(), count) };
        result(written)
    }

    /// Reads one frame from `fd` into the first `count` pieces, and what does not fit there into
    /// `beyond`. A frame that ends in the last byte of `beyond` may have lost its end.
    pub(super) fn read_from(
        &self,
        fd: BorrowedFd<'_>,
        count: usize,
        beyond: &mut [u8],
    ) -> io::Result<usize> {
        let mut vecs = [const { MaybeUninit::<libc::iovec>::uninit() }; IOVEC_MAX];
        let pieces = self
            .pieces
            .get(..count.min(IOVEC_MAX - 1))
            .unwrap_or(&self.pieces);
        let beyond_vec = libc::iovec {
            iov_base: beyond.as_mut_ptr().cast(),
            iov_len: beyond.len(),
        };
        let mut filled: libc::c_int = 0;
        for (slot, vec) in vecs
            .iter_mut()
            .zip(pieces.iter().map(|piece| piece.0).chain([beyond_vec]))
        {
            slot.write(vec);
            filled += 1;
        }
        // SAFETY: the first `filled` entries of `vecs` were initialised just above. All but the last
        // are mapped guest memory by the invariant of `GuestPieces`, which is never borrowed as a
        // Rust reference, so that the kernel may write it; the last is `beyond`, borrowed mutably
        // until the call returns.
        let read = unsafe { libc::readv(fd.as_raw_fd(), vecs.as_ptr().cast(), filled) };
        result(read)
    }

    /// Copies the first bytes, counted over all pieces, as far as there are any and `bytes` has room;
    /// returns how many. The guest may change them at any time, before and after.
    pub(super) fn load(&self, bytes: &mut [u8]) -> usize {
        let mut loaded = 0;
        for Piece(vec) in &self.pieces {
            let room = bytes.get_mut(loaded..).unwrap_or_default();
            if room.is_empty() {
                break;
            }
            // SAFETY: the piece is mapped guest memory of that length by the invariant of
            // `GuestPieces`, and the slice does not outlive `self`. Volatile slices tolerate a guest
            // that writes the same bytes.
            let piece = unsafe { VolatileSlice::new(vec.iov_base.cast(), vec.iov_len) };
            loaded += piece.copy_to(room);
        }
        loaded
    }

    /// Overwrites the bytes from `offset` on, counted over all pieces. Bytes beyond the last piece
    /// are ignored.
    pub(super) fn store(&self, offset: usize, bytes: &[u8]) {
        let mut skip = offset;
        let mut bytes = bytes;
        for Piece(vec) in &self.pieces {
            if bytes.is_empty() {
                return;
            }
            // SAFETY: the piece is mapped guest memory of that length by the invariant of
            // `GuestPieces`, and the slice does not outlive `self`. Volatile slices tolerate a guest
            // that looks at the same bytes.
            let piece = unsafe { VolatileSlice::new(vec.iov_base.cast(), vec.iov_len) };
            if let Ok(room) = piece.offset(skip) {
                let (here, rest) = bytes.split_at(bytes.len().min(room.len()));
                room.copy_from(here);
                bytes = rest;
            }
            skip = skip.saturating_sub(vec.iov_len);
        }
    }
}

fn result(bytes: isize) -> io::Result<usize> {
    usize::try_from(bytes).map_err(|_| io::Error::last_os_error())
}

/// The flags a tap was opened with (`TUNGETIFF`).
pub(super) fn tap_flags(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    let mut request = MaybeUninit::<libc::ifreq>::zeroed();
    // SAFETY: TUNGETIFF writes one `ifreq`, which `request` has room for and outlives the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, request.as_mut_ptr()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed bytes are a valid `ifreq`, and the kernel set `ifru_flags`, a plain integer.
    let flags = unsafe { request.assume_init().ifr_ifru.ifru_flags };
    Ok(libc::c_int::from(flags))
}

/// Sets the length of the header in front of each frame (`TUNSETVNETHDRSZ`).
pub(super) fn set_header_bytes(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: TUNSETVNETHDRSZ reads one `int` through the pointer, which outlives the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const bytes) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Tells the tap which unfinished frames its reader takes (`TUNSETOFFLOAD`).
pub(super) fn set_offloads(fd: BorrowedFd<'_>, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
    let done = unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            libc::c_ulong::from(flags),
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Attaches a queue to the tap it was opened for, or detaches it (`TUNSETQUEUE`).
pub(super) fn set_attached(fd: BorrowedFd<'_>, wanted: Attached) -> io::Result<()> {
    let flag = match wanted {
        Attached::Yes => libc::IFF_ATTACH_QUEUE,
        Attached::No => libc::IFF_DETACH_QUEUE,
    };
    let mut request = MaybeUninit::<libc::ifreq>::zeroed();
    // SAFETY: zeroed bytes are a valid `ifreq`; writing one plain integer of it keeps it so.
    unsafe { request.assume_init_mut() }.ifr_ifru.ifru_flags =
        libc::c_short::try_from(flag).map_err(io::Error::other)?;
    // SAFETY: TUNSETQUEUE reads one `ifreq`, which `request` is and outlives the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETQUEUE, request.as_ptr()) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
