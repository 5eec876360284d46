//! The engine on io_uring: many requests at a time, one system call for a batch.
//!
//! A request that is alone may do without it, see [`direct`].

mod direct;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use self::direct::Direct;
use super::io_sync::{advance, settle};
use super::raw::is_unsupported;
use super::sys::{Ring, RingOp};
use super::{Completion, DiskEngine, DiskRequest, Durability, Extent, RawDisk, SubmitError};
use crate::device::Memory;

/// What remains to be done for a tag. Its buffers are the ring's.
#[derive(Debug, Clone, Copy)]
enum Job {
    /// Read from this byte on.
    Read { offset: u64 },
    /// Write from this byte on.
    Write { offset: u64 },
    /// Flush.
    Flush,
    /// Clear the slot's extents from this one on.
    Clear { next: usize },
}

/// One tag's request in flight. The vector keeps its space between requests.
#[derive(Default)]
struct Slot {
    job: Option<Job>,
    extents: Vec<Extent>,
    /// Number of the submission, to tell which writes a flush has to wait for.
    sequence: u64,
}

/// What comes after an operation that went well.
enum Step {
    Again,
    Finished,
}

/// A flush that waits for writes submitted before it.
struct WaitingFlush {
    tag: u16,
    sequence: u64,
    writes_left: usize,
}

/// io_uring with a registered file, an eventfd, and nothing but the four operations it needs.
pub struct UringEngine {
    disk: Arc<RawDisk>,
    ring: Ring,
    durability: Durability,
    direct: Direct,
    slots: Vec<Slot>,
    /// Tags whose next operation is to be pushed, oldest first.
    ready: VecDeque<u16>,
    flushes: Vec<WaitingFlush>,
    sequence: u64,
    /// Writes and clears in flight.
    writes: usize,
    in_flight: usize,
    done: Vec<Completion>,
}

impl UringEngine {
    /// An engine for tags below `tags` over guest memory.
    ///
    /// # Errors
    /// When the host has no io_uring, forbids it, or is out of memory for it: use
    /// [`super::SyncEngine`] then.
    pub fn new(
        disk: Arc<RawDisk>,
        memory: Memory,
        tags: u16,
        durability: Durability,
    ) -> io::Result<Self> {
        Self::with_entries(disk, memory, tags, (durability, tags))
    }

    /// Whether the host gives us a ring for this image.
    ///
    /// # Errors
    /// As [`UringEngine::new`].
    pub fn probe(disk: &RawDisk) -> io::Result<()> {
        Ring::new(disk, Memory::new(), 1, 1).map(drop)
    }

    /// As [`UringEngine::new`], with a ring of another size than one entry per tag.
    pub(super) fn with_entries(
        disk: Arc<RawDisk>,
        memory: Memory,
        tags: u16,
        (durability, entries): (Durability, u16),
    ) -> io::Result<Self> {
        Ok(Self {
            ring: Ring::new(&*disk, memory, tags, entries)?,
            disk,
            durability,
            direct: Direct::new(),
            slots: (0..tags).map(|_| Slot::default()).collect(),
            ready: VecDeque::with_capacity(usize::from(tags)),
            flushes: Vec::new(),
            sequence: 0,
            writes: 0,
            in_flight: 0,
            done: Vec::with_capacity(usize::from(tags)),
        })
    }

    /// Queues the first operation of an accepted request.
    fn start(&mut self, tag: u16, job: Job) {
        self.sequence = self.sequence.wrapping_add(1);
        self.in_flight = self.in_flight.saturating_add(1);
        if let Some(slot) = self.slots.get_mut(usize::from(tag)) {
            slot.job = Some(job);
            slot.sequence = self.sequence;
        }
        match job {
            Job::Flush if self.writes > 0 => {
                self.flushes.push(WaitingFlush {
                    tag,
                    sequence: self.sequence,
                    writes_left: self.writes,
                });
                return;
            }
            Job::Write { .. } | Job::Clear { .. } => self.writes = self.writes.saturating_add(1),
            Job::Read { .. } | Job::Flush => {}
        }
        self.ready.push_back(tag);
    }

    /// The next operation of a request; nothing when the ring has no part in it.
    fn operation(&self, tag: u16) -> Option<RingOp> {
        let slot = self.slots.get(usize::from(tag))?;
        match slot.job? {
            Job::Read { .. } | Job::Write { .. } if self.ring.buffers().is_done(tag) => None,
            Job::Read { offset } => Some(RingOp::Read { offset }),
            Job::Write { offset } => Some(RingOp::Write {
                offset,
                flags: self.durability.write_flags(),
            }),
            Job::Flush => Some(RingOp::Sync),
            Job::Clear { next } => {
                let extent = slot.extents.get(next)?;
                let mode = self.disk.clear_mode(extent.action)?.bits();
                Some(RingOp::Allocate {
                    offset: extent.offset,
                    len: extent.len,
                    mode,
                })
            }
        }
    }

    /// Moves ready requests into the ring while it has room.
    fn push_ready(&mut self) {
        while let Some(tag) = self.ready.front().copied() {
            match self.operation(tag) {
                Some(op) if !self.ring.push(tag, op) => return,
                Some(_) => {}
                None => self.run_outside(tag),
            }
            self.ready.pop_front();
        }
    }

    /// Finishes what the ring has no operation for: no bytes, or extents of a block device.
    fn run_outside(&mut self, tag: u16) {
        let Some(slot) = self.slots.get(usize::from(tag)) else {
            return;
        };
        let rest = match slot.job {
            Some(Job::Clear { next }) => slot.extents.get(next..).unwrap_or_default(),
            _ => &[],
        };
        let result = rest.iter().try_for_each(|extent| self.disk.clear(*extent));
        self.finish(tag, result);
    }

    /// Takes what an operation returned: its request goes on or is finished.
    fn step(&mut self, tag: u16, result: io::Result<usize>) {
        let step = match result {
            Ok(moved) => self.moved(tag, moved),
            Err(error) => self.failed(tag, error),
        };
        match step {
            Ok(Step::Again) => self.ready.push_back(tag),
            Ok(Step::Finished) => self.finish(tag, Ok(())),
            Err(error) => self.finish(tag, Err(error)),
        }
    }

    fn moved(&mut self, tag: u16, bytes: usize) -> io::Result<Step> {
        let Some(slot) = self.slots.get_mut(usize::from(tag)) else {
            return Ok(Step::Finished);
        };
        match &mut slot.job {
            Some(Job::Read { offset } | Job::Write { offset }) => {
                *offset = advance(*offset, bytes)?;
                self.ring.advance(tag, bytes);
                let done = self.ring.buffers().is_done(tag);
                Ok(if done { Step::Finished } else { Step::Again })
            }
            Some(Job::Clear { next }) => {
                *next = next.saturating_add(1);
                let done = *next >= slot.extents.len();
                Ok(if done { Step::Finished } else { Step::Again })
            }
            Some(Job::Flush) | None => Ok(Step::Finished),
        }
    }

    fn failed(&mut self, tag: u16, error: io::Error) -> io::Result<Step> {
        if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) {
            return Ok(Step::Again);
        }
        let slot = self.slots.get(usize::from(tag));
        let extent = slot.and_then(|slot| match slot.job {
            Some(Job::Clear { next }) => slot.extents.get(next),
            _ => None,
        });
        match extent {
            Some(extent) if is_unsupported(&error) => {
                self.disk.clear_slowly(*extent)?;
                self.moved(tag, 0)
            }
            _ => Err(error),
        }
    }

    /// Reports a request, and lets the flushes go that waited for it.
    fn finish(&mut self, tag: u16, result: io::Result<()>) {
        let Some(slot) = self.slots.get_mut(usize::from(tag)) else {
            return;
        };
        let job = slot.job.take();
        let settled = match job {
            Some(Job::Clear { .. }) => settle(&self.disk, &slot.extents, self.durability),
            _ => Ok(()),
        };
        if let Some(Job::Write { .. } | Job::Clear { .. }) = job {
            let sequence = slot.sequence;
            self.writes = self.writes.saturating_sub(1);
            self.release_flushes(sequence);
        }
        self.done.push(Completion {
            tag,
            result: result.and(settled),
        });
    }

    fn release_flushes(&mut self, written: u64) {
        for flush in &mut self.flushes {
            if flush.sequence > written {
                flush.writes_left = flush.writes_left.saturating_sub(1);
            }
        }
        let ready = &mut self.ready;
        self.flushes.retain(|flush| {
            if flush.writes_left == 0 {
                ready.push_back(flush.tag);
            }
            flush.writes_left > 0
        });
    }

    /// Does the next operation of the only request by a plain call, if that does not take long.
    fn run_alone(&mut self) {
        let (1, Some(tag)) = (self.in_flight, self.ready.front().copied()) else {
            return;
        };
        let operation = self.operation(tag);
        let buffers = self.ring.buffers();
        let done = match operation {
            Some(RingOp::Read { offset }) => self.direct.read(buffers, &self.disk, (tag, offset)),
            Some(RingOp::Write { offset, flags: 0 }) => {
                self.direct.write(buffers, &self.disk, (tag, offset))
            }
            _ => None,
        };
        if let Some(result) = done {
            self.ready.pop_front();
            self.step(tag, result);
        }
    }

    /// Takes every completion there is, and pushes what follows from it.
    fn collect(&mut self) {
        while let Some((tag, returned)) = self.ring.next() {
            let moved = usize::try_from(returned);
            self.step(
                tag,
                moved.map_err(|_| io::Error::from_raw_os_error(returned.wrapping_neg())),
            );
        }
        self.push_ready();
    }

    /// Enters the ring until nothing more can be pushed.
    fn enter_all(&mut self) -> io::Result<()> {
        self.push_ready();
        loop {
            self.ring.enter()?;
            self.collect();
            if !self.ring.has_queued() {
                return Ok(());
            }
        }
    }
}

impl DiskEngine for UringEngine {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn completion_event(&self) -> Option<&EventFd> {
        Some(self.ring.event())
    }

    fn submit(&mut self, tag: u16, request: DiskRequest<'_>) -> Result<(), SubmitError> {
        let tags = self.slots.len();
        let slot = self.slots.get_mut(usize::from(tag));
        let slot = slot.ok_or(SubmitError::NoSuchTag { tag, tags })?;
        if slot.job.is_some() {
            return Err(SubmitError::Busy { tag });
        }
        let job = match request {
            DiskRequest::Read { offset, segments } => {
                let filled = self.ring.fill(tag, segments);
                filled.map_err(|source| SubmitError::Memory { tag, source })?;
                Job::Read { offset }
            }
            DiskRequest::Write { offset, segments } => {
                let filled = self.ring.fill(tag, segments);
                filled.map_err(|source| SubmitError::Memory { tag, source })?;
                Job::Write { offset }
            }
            DiskRequest::Flush => Job::Flush,
            DiskRequest::Clear { extents } => {
                slot.extents.clear();
                slot.extents.extend_from_slice(extents);
                Job::Clear { next: 0 }
            }
        };
        self.start(tag, job);
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        self.run_alone();
        match self.enter_all() {
            // The kernel has no room at the moment: come back through the event loop.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.ring.event().write(1),
            result => result,
        }
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        self.collect();
        self.in_flight = self.in_flight.saturating_sub(self.done.len());
        done.append(&mut self.done);
    }

    fn wait(&mut self) -> io::Result<()> {
        self.push_ready();
        while self.done.is_empty() && self.in_flight > 0 {
            self.ring.wait()?;
            self.collect();
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }
}
