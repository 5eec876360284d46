//! Copy-before-write: the content that an image had at one moment, while its guest writes on.
//!
//! A [`Preservation`] is armed while nothing is in flight. From then on it brings the image cluster
//! by cluster into another file, on whatever thread calls [`Preservation::run`]: copies it, or has the
//! file system share its blocks, a range at a time rather than all at once, so that nobody waits long. A write, discard or
//! write of zeroes that touches a cluster not copied yet is held by [`PreservingEngine`] until the
//! copier has brought it forward; everything else passes.
//!
//! ```text
//! armed ─▶ run: cluster by cluster, those that writes wait for first ─▶ complete
//!               └─ an error, or give_up ─▶ given up: writes wait for nothing any more
//! ```
//!
//! Holes are not copied: the target is sparse where the image was.
//!
//! Not here: which file the copy goes to, what it is called, when the guest is halted.

mod clusters;
mod copier;
mod engine;
mod space;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vmm_sys_util::eventfd::EventFd;

use self::clusters::Clusters;
use super::RawDisk;

pub use self::engine::PreservingEngine;

/// Unit of copying in bytes: a write of a single sector costs at most one such read.
pub const CLUSTER_BYTES: u64 = 64 << 10;

/// Why the old content was not preserved. The image and its guest are not concerned.
#[derive(Debug, thiserror::Error)]
pub enum PreserveError {
    /// The image could not be read.
    #[error("Failed to read the image at byte {offset}")]
    Read {
        /// Where.
        offset: u64,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The copy's file system is too full. Nothing of it is taken from the guest.
    #[error(
        "The copy needs up to {needed} MiB, 16 of them left to the guest, and its file system has {free} \
         MiB free: make room there"
    )]
    NoRoom {
        /// What it needs, in MiB.
        needed: u64,
        /// What there is, in MiB.
        free: u64,
    },
    /// The copy could not be written.
    #[error("Failed to write the copy at byte {offset}; is its file system full?")]
    Write {
        /// Where.
        offset: u64,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The file system does not share blocks any more.
    #[error("Failed to share the image's blocks with the copy at byte {offset}")]
    Share {
        /// Where.
        offset: u64,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// [`Preservation::give_up`] was called.
    #[error("The copy was given up")]
    GivenUp,
}

/// How content comes into the other file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// It is read and written.
    Copy {
        /// Bytes per second that the copier moves while no write waits for it.
        rate: Option<NonZeroU64>,
    },
    /// The file system shares its blocks; nothing is read.
    Share,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes of data that were copied; holes do not count.
    pub copied: u64,
    /// Bytes of the image that need no more looking at.
    pub settled: u64,
    /// Size of the image in bytes.
    pub size: u64,
}

/// The content of an image on its way to another file. Shared by the image's engine and the thread
/// that copies.
#[derive(Debug)]
pub struct Preservation {
    image: Arc<RawDisk>,
    size: u64,
    method: Method,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Clusters whose old content is safe, or was none.
    settled: Clusters,
    /// Ranges of clusters that writes wait for. As long as there are such writes: each adds its own.
    wanted: VecDeque<Range<u64>>,
    /// Where the copier goes on when no write waits.
    cursor: u64,
    copied: u64,
    end: Option<End>,
    /// Fires when a cluster was settled that an engine waits for.
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    wake: Arc<EventFd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    GivenUp,
}

impl Preservation {
    /// Prepares to preserve `disk`. Arm it with [`RawDisk::arm`].
    pub fn new(disk: Arc<RawDisk>, method: Method) -> Self {
        let clusters = disk.size().div_ceil(CLUSTER_BYTES);
        Self {
            size: disk.size(),
            image: disk,
            method,
            state: Mutex::new(State {
                settled: Clusters::new(clusters),
                wanted: VecDeque::new(),
                cursor: 0,
                copied: 0,
                end: None,
                waiting: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// How content comes into the other file.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Ends it: [`run`](Self::run) returns soon, and writes wait for nothing any more.
    pub fn give_up(&self) {
        self.end(End::GivenUp);
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let state = self.lock();
        let settled = state.settled.count().saturating_mul(CLUSTER_BYTES);
        Progress {
            copied: state.copied,
            settled: settled.min(self.size),
            size: self.size,
        }
    }

    /// Since when a write of the guest waits; nothing while none does.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.lock().waiting.as_ref().map(|waiting| waiting.since)
    }

    /// Whether writes wait for nothing any more.
    fn has_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// Whether every byte of these ranges may be overwritten: offsets and lengths in bytes.
    fn is_settled(&self, ranges: &[(u64, u64)]) -> bool {
        let state = self.lock();
        state.end.is_some()
            || ranges
                .iter()
                .all(|range| state.settled.has(clusters_of(*range)))
    }

    /// Has the clusters of these ranges copied first, and `wake` fired when some are.
    fn want(&self, ranges: &[(u64, u64)], wake: &Arc<EventFd>) {
        let mut state = self.lock();
        state
            .wanted
            .extend(ranges.iter().map(|range| clusters_of(*range)));
        self.wait_with(&mut state, wake);
    }

    /// Has `wake` fired when the next wanted cluster is settled, or has been meanwhile.
    fn keep_waiting(&self, wake: &Arc<EventFd>) {
        let mut state = self.lock();
        if state.wanted.is_empty() || state.end.is_some() {
            // Settled between the look and here.
            let _ = wake.write(1);
        } else {
            self.wait_with(&mut state, wake);
        }
    }

    fn wait_with(&self, state: &mut State, wake: &Arc<EventFd>) {
        state.waiting.get_or_insert_with(|| Waiting {
            since: Instant::now(),
            wake: Arc::clone(wake),
        });
        self.changed.notify_all();
    }

    /// Blocks until every byte of these ranges may be overwritten.
    fn wait_for(&self, ranges: &[(u64, u64)]) {
        let mut state = self.lock();
        while state.end.is_none()
            && !ranges
                .iter()
                .all(|range| state.settled.has(clusters_of(*range)))
        {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The first end counts.
    fn end(&self, end: End) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        self.settled_some(&mut state);
    }

    fn settled_some(&self, state: &mut State) {
        if let Some(waiting) = state.waiting.take() {
            // Fails only when the counter is full, and then the engine is awake already.
            let _ = waiting.wake.write(1);
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clusters that a range of bytes touches.
fn clusters_of((offset, len): (u64, u64)) -> Range<u64> {
    let end = offset.saturating_add(len).div_ceil(CLUSTER_BYTES);
    let first = offset / CLUSTER_BYTES;
    first..if len == 0 { first } else { end }
}
