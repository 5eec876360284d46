//! An io_uring that can do four things to one file, and owns the buffers it does them with.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::types::Fixed;
use io_uring::{IoUring, Probe, opcode, register::Restriction, squeue};
use vm_memory::GuestMemoryError;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::BufferTable;
use crate::device::Memory;
use crate::disk::Segment;

/// Place of the image in the ring's table of registered files.
const IMAGE: Fixed = Fixed(0);

/// The only operations a ring is ever asked for; the kernel refuses others when it can.
const OPCODES: [u8; 4] = [
    opcode::Readv::CODE,
    opcode::Writev::CODE,
    opcode::Fsync::CODE,
    opcode::Fallocate::CODE,
];

/// What to do for a tag.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RingOp {
    /// `preadv2` into what remains of the tag's buffers.
    Read { offset: u64 },
    /// `pwritev2` of what remains of the tag's buffers.
    Write { offset: u64, flags: i32 },
    /// `fdatasync`.
    Sync,
    /// `fallocate`.
    Allocate { offset: u64, len: u64, mode: u32 },
}

/// The ring.
///
/// Invariant: while a tag is `busy`, its row in `buffers` is not touched, and the table outlives
/// the ring's last operation: `drop` waits for them all, and leaks the mapping when it cannot.
pub(crate) struct Ring {
    ring: IoUring,
    buffers: BufferTable,
    busy: Vec<bool>,
    in_kernel: usize,
    event: EventFd,
    memory: Memory,
}

impl Ring {
    /// A ring of `entries` submissions for tags below `tags`.
    ///
    /// # Errors
    /// When the host has no io_uring, forbids it, or lacks one of the operations.
    pub(crate) fn new(
        image: &impl AsFd,
        memory: Memory,
        tags: u16,
        entries: u16,
    ) -> io::Result<Self> {
        let ring = build(entries)?;
        let submitter = ring.submitter();
        let mut probe = Probe::new();
        submitter.register_probe(&mut probe)?;
        if !OPCODES.iter().all(|code| probe.is_supported(*code)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        submitter.register_files(&[image.as_fd().as_raw_fd()])?;
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        submitter.register_eventfd(event.as_raw_fd())?;
        restrict(&submitter)?;
        submitter.register_enable_rings()?;
        Ok(Self {
            ring,
            buffers: BufferTable::new(memory.clone(), tags),
            busy: vec![false; usize::from(tags)],
            in_kernel: 0,
            event,
            memory,
        })
    }

    /// Fires when an operation completed.
    pub(crate) fn event(&self) -> &EventFd {
        &self.event
    }

    /// Replaces the buffers of a tag that is not in the kernel.
    pub(crate) fn fill(&mut self, tag: u16, segments: &[Segment]) -> Result<(), GuestMemoryError> {
        if self.is_busy(tag) {
            return Ok(());
        }
        self.buffers.fill(tag, segments)
    }

    /// Drops moved bytes from the buffers of a tag that is not in the kernel.
    pub(crate) fn advance(&mut self, tag: u16, bytes: usize) {
        if !self.is_busy(tag) {
            self.buffers.advance(tag, bytes);
        }
    }

    /// The buffers, to look at or to use in a call of one's own.
    pub(crate) fn buffers(&self) -> &BufferTable {
        &self.buffers
    }

    /// Queues an operation for the next [`Ring::enter`]; false when there is no room now.
    pub(crate) fn push(&mut self, tag: u16, op: RingOp) -> bool {
        let Some(busy @ false) = self.busy.get_mut(usize::from(tag)) else {
            return false;
        };
        let row = self.buffers.row(tag);
        let count = u32::try_from(row.len()).unwrap_or(0);
        let entry = match op {
            RingOp::Read { offset } => opcode::Readv::new(IMAGE, row.as_ptr(), count)
                .offset(offset)
                .build(),
            RingOp::Write { offset, flags } => opcode::Writev::new(IMAGE, row.as_ptr(), count)
                .offset(offset)
                .rw_flags(flags)
                .build(),
            RingOp::Sync => opcode::Fsync::new(IMAGE)
                .flags(io_uring::types::FsyncFlags::DATASYNC)
                .build(),
            RingOp::Allocate { offset, len, mode } => opcode::Fallocate::new(IMAGE, len)
                .offset(offset)
                .mode(i32::try_from(mode).unwrap_or(0))
                .build(),
        };
        let entry = entry.user_data(u64::from(tag));
        // SAFETY: the entry points to `row` and to the guest memory in it; `busy` is set below, so
        // by the ring's invariant both stay as they are until the completion is taken.
        let pushed = unsafe { self.ring.submission().push(&entry) }.is_ok();
        if pushed {
            *busy = true;
            self.in_kernel = self.in_kernel.saturating_add(1);
        }
        pushed
    }

    /// Hands the queued operations to the kernel. Some may be complete when it returns: look at
    /// [`Ring::next`]. Their event fires as well; muting it meanwhile would save a wake-up, but a
    /// completion that races with the end of the muting could then be lost.
    ///
    /// # Errors
    /// `WouldBlock` when the kernel has no room at the moment, others for good.
    pub(crate) fn enter(&mut self) -> io::Result<()> {
        while !self.ring.submission().is_empty() {
            match self.ring.submit() {
                Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(_) => {}
                Err(error) => retry(error)?,
            }
        }
        Ok(())
    }

    /// Blocks until something completed; submits what is queued as well.
    ///
    /// # Errors
    /// When the kernel refuses for good.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        while self.in_kernel > 0 && self.ring.completion().is_empty() {
            if let Err(error) = self.ring.submit_and_wait(1) {
                match retry(error) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    _ => std::thread::yield_now(),
                }
            }
        }
        Ok(())
    }

    /// Takes a completed operation: its tag, and what the system call would have returned.
    pub(crate) fn next(&mut self) -> Option<(u16, i32)> {
        let entry = self.ring.completion().next()?;
        let tag = u16::try_from(entry.user_data()).ok()?;
        if let Some(busy) = self.busy.get_mut(usize::from(tag)) {
            *busy = false;
        }
        self.in_kernel = self.in_kernel.saturating_sub(1);
        Some((tag, entry.result()))
    }

    /// Whether operations wait for [`Ring::enter`].
    pub(crate) fn has_queued(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    fn is_busy(&self, tag: u16) -> bool {
        self.busy.get(usize::from(tag)).copied().unwrap_or(true)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.in_kernel > 0 {
            if let Err(error) = self.wait() {
                // The kernel may still write to guest memory: better never unmapped than reused.
                tracing::error!(%error, requests = self.in_kernel, "io_uring did not drain; keeping guest memory mapped");
                std::mem::forget(self.memory.clone());
                return;
            }
            while self.next().is_some() {}
        }
    }
}

/// Whether to try again: an interrupted call yes, a kernel without room later.
fn retry(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::EINTR) => Ok(()),
        Some(libc::EAGAIN | libc::EBUSY) => Err(io::ErrorKind::WouldBlock.into()),
        _ => Err(error),
    }
}

fn build(entries: u16) -> io::Result<IoUring> {
    let entries = u32::from(entries);
    let cooperative = IoUring::builder()
        .dontfork()
        .setup_r_disabled()
        .setup_coop_taskrun()
        .build(entries);
    match cooperative {
        // Kernels before 5.19 do not know the flag, which only saves interrupts.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::builder()
            .dontfork()
            .setup_r_disabled()
            .build(entries),
        ring => ring,
    }
}

fn restrict(submitter: &io_uring::Submitter<'_>) -> io::Result<()> {
    /// `IORING_REGISTER_ENABLE_RINGS`.
    const ENABLE_RINGS: u8 = 12;
    let mut allowed: Vec<Restriction> = OPCODES
        .iter()
        .map(|code| Restriction::sqe_op(*code))
        .collect();
    allowed.push(Restriction::sqe_flags_required(
        squeue::Flags::FIXED_FILE.bits(),
    ));
    allowed.push(Restriction::register_op(ENABLE_RINGS));
    submitter.register_restrictions(&mut allowed)
}
