//! The engine that does everything within `submit`, on the caller's thread.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::sys::BufferTable;
use super::{
    Completion, DiskEngine, DiskRequest, Durability, Extent, ExtentAction, RawDisk, SubmitError,
};
use crate::device::Memory;

/// Plain system calls, one request after the other: for hosts without io_uring, and for tests.
pub struct SyncEngine {
    disk: Arc<RawDisk>,
    buffers: BufferTable,
    busy: Vec<bool>,
    durability: Durability,
    done: Vec<Completion>,
}

impl SyncEngine {
    /// An engine for tags below `tags` over guest memory.
    pub fn new(disk: Arc<RawDisk>, memory: Memory, tags: u16, durability: Durability) -> Self {
        Self {
            disk,
            buffers: BufferTable::new(memory, tags),
            busy: vec![false; usize::from(tags)],
            durability,
            done: Vec::with_capacity(usize::from(tags)),
        }
    }

    fn fill(&mut self, tag: u16, request: &DiskRequest<'_>) -> Result<(), SubmitError> {
        match self.busy.get(usize::from(tag)) {
            Some(false) => {}
            Some(true) => return Err(SubmitError::Busy { tag }),
            None => {
                let tags = self.busy.len();
                return Err(SubmitError::NoSuchTag { tag, tags });
            }
        }
        if let DiskRequest::Read { segments, .. } | DiskRequest::Write { segments, .. } = request {
            let filled = self.buffers.fill(tag, segments);
            filled.map_err(|source| SubmitError::Memory { tag, source })?;
        }
        Ok(())
    }

    fn run(&mut self, tag: u16, request: &DiskRequest<'_>) -> io::Result<()> {
        match request {
            DiskRequest::Read { offset, .. } => self.read(tag, *offset),
            DiskRequest::Write { offset, .. } => self.write(tag, *offset),
            DiskRequest::Flush => self.disk.flush(),
            DiskRequest::Clear { extents } => clear_all(&self.disk, extents, self.durability),
        }
    }

    fn read(&mut self, tag: u16, mut offset: u64) -> io::Result<()> {
        while !self.buffers.is_done(tag) {
            match self.buffers.read_at(tag, &*self.disk, offset, 0) {
                Ok(moved) => {
                    offset = advance(offset, moved)?;
                    self.buffers.advance(tag, moved);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write(&mut self, tag: u16, mut offset: u64) -> io::Result<()> {
        let flags = self.durability.write_flags();
        while !self.buffers.is_done(tag) {
            match self.buffers.write_at(tag, &*self.disk, offset, flags) {
                Ok(moved) => {
                    offset = advance(offset, moved)?;
                    self.buffers.advance(tag, moved);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl DiskEngine for SyncEngine {
    fn name(&self) -> &'static str {
        "sync"
    }

    fn completion_event(&self) -> Option<&EventFd> {
        None
    }

    fn submit(&mut self, tag: u16, request: DiskRequest<'_>) -> Result<(), SubmitError> {
        self.fill(tag, &request)?;
        if let Some(busy) = self.busy.get_mut(usize::from(tag)) {
            *busy = true;
        }
        let result = self.run(tag, &request);
        self.done.push(Completion { tag, result });
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        self.busy.fill(false);
        done.append(&mut self.done);
    }

    fn wait(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }
}

impl Durability {
    /// The `pwritev2` flags that give it.
    pub(super) fn write_flags(self) -> i32 {
        match self {
            Self::OnFlush => 0,
            Self::EveryWrite => libc::RWF_DSYNC,
        }
    }
}

fn clear_all(disk: &RawDisk, extents: &[Extent], durability: Durability) -> io::Result<()> {
    for extent in extents {
        disk.clear(*extent)?;
    }
    settle(disk, extents, durability)
}

/// After the last extent: zeroes count as written data, discarded bytes do not.
pub(super) fn settle(disk: &RawDisk, extents: &[Extent], durability: Durability) -> io::Result<()> {
    let zeroes = extents
        .iter()
        .any(|extent| extent.action != ExtentAction::Discard);
    if zeroes && durability == Durability::EveryWrite {
        disk.flush()?;
    }
    Ok(())
}

/// The byte after `moved` bytes from `offset`.
///
/// # Errors
/// When nothing was moved: the image shrank under us.
pub(super) fn advance(offset: u64, moved: usize) -> io::Result<u64> {
    if moved == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    offset
        .checked_add(moved as u64)
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
