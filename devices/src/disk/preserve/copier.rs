//! The half that copies: what writes wait for first, then everything else from the start on.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::failpoint;

use super::{CLUSTER_BYTES, End, Method, Preservation, PreserveError, space};

/// Most clusters copied before looking for a write that waits: 512 KiB. A write that waits for its
/// clusters to be shared waits for no more than these either.
const BATCH: u64 = 8;

/// Most clusters shared before looking for a write that waits: 16 MiB. The file system keeps
/// requests on the whole image waiting meanwhile.
const SHARED_BATCH: u64 = 256;

/// What the copier does next.
enum Next {
    /// Copy these clusters.
    Copy(Range<u64>),
    /// Nothing is left, or it was given up.
    Ended(End),
}

impl Preservation {
    /// Copies to `target`, an empty file, until everything is there and survives a power cut. For
    /// one thread.
    ///
    /// # Errors
    /// When reading or writing fails, or it was given up; writes are let go then.
    pub fn run(&self, target: &File) -> Result<(), PreserveError> {
        let copied = self.copy_all(target);
        failpoint::pass("copied");
        let result = copied.and_then(|()| self.finish(target));
        if result.is_err() {
            self.give_up();
        }
        result
    }

    fn copy_all(&self, target: &File) -> Result<(), PreserveError> {
        self.set_length(target)?;
        let mut buffer = Vec::new();
        let started = Instant::now();
        while self.step(started, (target, &mut buffer))? {}
        Ok(())
    }

    /// Gives the copy the image's length; done once, before the first cluster.
    pub(super) fn set_length(&self, target: &File) -> Result<(), PreserveError> {
        let sized = failpoint::point("size the copy").and_then(|()| target.set_len(self.size));
        sized.map_err(|source| PreserveError::Write { offset: 0, source })
    }

    /// Copies some clusters. False when there is nothing left.
    pub(super) fn step(
        &self,
        started: Instant,
        to: (&File, &mut Vec<u8>),
    ) -> Result<bool, PreserveError> {
        match self.next(started) {
            Next::Ended(End::Complete) => Ok(false),
            Next::Ended(End::GivenUp) => Err(PreserveError::GivenUp),
            Next::Copy(run) => self.copy(run, to).map(|()| true),
        }
    }

    fn finish(&self, target: &File) -> Result<(), PreserveError> {
        let synced = failpoint::point("sync the copy").and_then(|()| target.sync_data());
        synced.map_err(|source| PreserveError::Write {
            offset: self.size,
            source,
        })
    }

    fn next(&self, started: Instant) -> Next {
        let mut state = self.lock();
        loop {
            if let Some(end) = state.end {
                return Next::Ended(end);
            }
            while let Some(range) = state.wanted.front().cloned() {
                if let Some(first) = state.settled.next_missing(range.clone()) {
                    let end = range.end.min(first.saturating_add(BATCH));
                    return Next::Copy(state.settled.missing_run(first, end));
                }
                state.wanted.pop_front();
                // Whoever looked before the last cluster of it was settled looks again.
                self.settled_some(&mut state);
            }
            let all = state.cursor..self.size.div_ceil(CLUSTER_BYTES);
            let Some(first) = state.settled.next_missing(all.clone()) else {
                drop(state);
                self.end(End::Complete);
                return Next::Ended(End::Complete);
            };
            state.cursor = first;
            let Some(pause) = self.too_fast(state.copied, started) else {
                let batch = match self.method {
                    Method::Copy { .. } => BATCH,
                    Method::Share => SHARED_BATCH,
                };
                let end = all.end.min(first.saturating_add(batch));
                return Next::Copy(state.settled.missing_run(first, end));
            };
            let woken = self.changed.wait_timeout(state, pause);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How long to wait until `copied` bytes since `started` are within the rate.
    fn too_fast(&self, copied: u64, started: Instant) -> Option<Duration> {
        let Method::Copy { rate: Some(rate) } = self.method else {
            return None;
        };
        let due = Duration::from_millis(copied.saturating_mul(1000) / rate);
        due.checked_sub(started.elapsed())
            .filter(|wait| !wait.is_zero())
    }

    /// Copies the data of clusters that are not settled, which nobody writes to before they are.
    fn copy(
        &self,
        run: Range<u64>,
        (target, buffer): (&File, &mut Vec<u8>),
    ) -> Result<(), PreserveError> {
        let start = run.start.saturating_mul(CLUSTER_BYTES);
        let end = run.end.saturating_mul(CLUSTER_BYTES).min(self.size);
        let (mut at, mut copied) = (start, 0_u64);
        // Up to where there is nothing to copy: beyond the run when a hole goes on.
        let mut clear_to = end;
        while at < end {
            let data = self.next_data(at);
            let data = data.map_err(|source| PreserveError::Read { offset: at, source })?;
            let piece = data.start.max(at)..data.end.min(end);
            if piece.start >= end {
                clear_to = data.start;
                break;
            }
            // Others write there as well.
            space::room(target, 0)?;
            if self.method == Method::Share {
                let shared = failpoint::point("share")
                    .and_then(|()| self.image.share_with(target, start..end));
                let offset = start;
                shared.map_err(|source| PreserveError::Share { offset, source })?;
                break;
            }
            self.copy_bytes(piece.clone(), (target, buffer))?;
            copied = copied.saturating_add(piece.end.saturating_sub(piece.start));
            at = piece.end;
        }
        let whole_holes = if clear_to >= self.size {
            self.size.div_ceil(CLUSTER_BYTES)
        } else {
            clear_to / CLUSTER_BYTES
        };
        let mut state = self.lock();
        state.settled.insert(run.start..run.end.max(whole_holes));
        state.copied = state.copied.saturating_add(copied);
        self.settled_some(&mut state);
        Ok(())
    }

    fn copy_bytes(
        &self,
        range: Range<u64>,
        (target, buffer): (&File, &mut Vec<u8>),
    ) -> Result<(), PreserveError> {
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or_default();
        let offset = range.start;
        buffer.resize(len, 0);
        let read = failpoint::point("read").and_then(|()| self.image.read_exact_at(buffer, offset));
        read.map_err(|source| PreserveError::Read { offset, source })?;
        let written = failpoint::point("write").and_then(|()| target.write_all_at(buffer, offset));
        written.map_err(|source| PreserveError::Write { offset, source })
    }

    /// The first range of data at or after `at`; one beyond the end when there is none. Where the
    /// host does not know of holes, all is data.
    fn next_data(&self, at: u64) -> io::Result<Range<u64>> {
        let start = match rustix::fs::seek(&*self.image, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(self.size..self.size),
            Err(Errno::INVAL) => return Ok(at..self.size),
            Err(errno) => return Err(errno.into()),
        };
        let end = rustix::fs::seek(&*self.image, SeekFrom::Hole(start))?;
        Ok(start..end)
    }
}
