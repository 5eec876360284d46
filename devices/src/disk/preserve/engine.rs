//! The half that holds writes back until what they overwrite is safe.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::Preservation;
use crate::disk::gate::Attendance;
use crate::disk::{
    Completion, DiskEngine, DiskRequest, Extent, Gate, RawDisk, Segment, SubmitError,
};

/// What every disk has in front of its engine: hands on everything, until a [`Preservation`] is
/// armed.
///
/// A write that is held and then found to lie outside guest memory ends with an I/O error instead
/// of being refused.
pub struct PreservingEngine {
    inner: Box<dyn DiskEngine>,
    attendance: Attendance,
    preservation: Option<Arc<Preservation>>,
    /// In order of submission.
    held: VecDeque<Held>,
    /// Requests that the inner engine refused once they were let go.
    refused: Vec<Completion>,
}

struct Held {
    tag: u16,
    request: Request,
}

/// A request that outlives its caller's buffers.
enum Request {
    Write { offset: u64, segments: Vec<Segment> },
    Clear { extents: Vec<Extent> },
    Flush,
}

impl PreservingEngine {
    /// Stands in front of `inner`, an engine of `image`, whose gate it attends from now on.
    pub fn new(inner: Box<dyn DiskEngine>, image: Arc<RawDisk>) -> Self {
        let preservation = image.armed();
        Self {
            inner,
            attendance: Attendance::at(image),
            preservation,
            held: VecDeque::new(),
            refused: Vec::new(),
        }
    }

    /// The gate of its image, whose event is to be waited for.
    pub(crate) fn gate(&self) -> &Gate {
        self.attendance.image().gate()
    }

    /// Its image.
    #[cfg(test)]
    pub(crate) fn image(&self) -> Arc<RawDisk> {
        Arc::clone(self.attendance.image())
    }

    /// Preserves from now on what is armed. To be called when the gate is found open.
    pub(crate) fn rearm(&mut self) {
        // What is held waits for the preservation that it came under.
        if self.held.is_empty() {
            self.preservation = self.attendance.image().armed();
        }
    }

    /// What goes on; nothing once it has ended and nothing is held by it any more.
    fn ongoing(&mut self) -> Option<Arc<Preservation>> {
        if self.held.is_empty() && self.preservation.as_ref().is_some_and(|on| on.has_ended()) {
            self.preservation = None;
        }
        self.preservation.clone()
    }

    /// Hands on what nothing keeps any more. A flush follows the writes that came before it.
    fn release(&mut self) {
        let Some(preservation) = self.ongoing() else {
            return;
        };
        let mut writes_held = false;
        for held in std::mem::take(&mut self.held) {
            let free = match &held.request {
                Request::Flush => !writes_held,
                request => preservation.is_settled(&request.ranges()),
            };
            if free {
                self.hand_on(&held);
            } else {
                writes_held = true;
                self.held.push_back(held);
            }
        }
        if !self.held.is_empty() {
            preservation.keep_waiting(self.gate().event());
        }
    }

    fn hand_on(&mut self, held: &Held) {
        if let Err(error) = self.inner.submit(held.tag, held.request.borrow()) {
            self.refused.push(Completion {
                tag: held.tag,
                result: Err(io::Error::new(io::ErrorKind::InvalidInput, error)),
            });
        }
    }
}

impl DiskEngine for PreservingEngine {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn completion_event(&self) -> Option<&EventFd> {
        self.inner.completion_event()
    }

    fn submit(&mut self, tag: u16, request: DiskRequest<'_>) -> Result<(), SubmitError> {
        if self.held.iter().any(|held| held.tag == tag) {
            return Err(SubmitError::Busy { tag });
        }
        let Some(preservation) = self.ongoing() else {
            return self.inner.submit(tag, request);
        };
        let owned = match Request::of(&request) {
            None => return self.inner.submit(tag, request),
            // Nothing held means no write before it, since a held flush has one before it.
            Some(Request::Flush) if self.held.is_empty() => {
                return self.inner.submit(tag, request);
            }
            Some(owned) => owned,
        };
        let ranges = owned.ranges();
        if !ranges.is_empty() {
            if preservation.is_settled(&ranges) {
                return self.inner.submit(tag, request);
            }
            preservation.want(&ranges, self.gate().event());
        }
        self.held.push_back(Held {
            tag,
            request: owned,
        });
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        self.release();
        self.inner.commit()
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        self.inner.reap(done);
        done.append(&mut self.refused);
    }

    fn wait(&mut self) -> io::Result<()> {
        self.commit()?;
        while self.refused.is_empty()
            && self.inner.in_flight() == 0
            && let (Some(first), Some(preservation)) = (self.held.front(), &self.preservation)
        {
            preservation.wait_for(&first.request.ranges());
            self.commit()?;
        }
        if self.refused.is_empty() {
            return self.inner.wait();
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        let own = self.held.len().saturating_add(self.refused.len());
        self.inner.in_flight().saturating_add(own)
    }
}

impl Request {
    /// A copy of what may have to be held; nothing for a read.
    fn of(request: &DiskRequest<'_>) -> Option<Self> {
        match request {
            DiskRequest::Read { .. } => None,
            DiskRequest::Flush => Some(Self::Flush),
            DiskRequest::Write { offset, segments } => Some(Self::Write {
                offset: *offset,
                segments: segments.to_vec(),
            }),
            DiskRequest::Clear { extents } => Some(Self::Clear {
                extents: extents.to_vec(),
            }),
        }
    }

    fn borrow(&self) -> DiskRequest<'_> {
        match self {
            Self::Flush => DiskRequest::Flush,
            Self::Write { offset, segments } => DiskRequest::Write {
                offset: *offset,
                segments,
            },
            Self::Clear { extents } => DiskRequest::Clear { extents },
        }
    }

    /// The bytes of the image that it overwrites: offsets and lengths.
    fn ranges(&self) -> Vec<(u64, u64)> {
        match self {
            Self::Flush => Vec::new(),
            Self::Write { offset, segments } => {
                let len = segments.iter().map(|segment| u64::from(segment.len));
                vec![(*offset, len.fold(0, u64::saturating_add))]
            }
            Self::Clear { extents } => {
                let ranges = extents.iter().map(|extent| (extent.offset, extent.len));
                ranges.collect()
            }
        }
    }
}
