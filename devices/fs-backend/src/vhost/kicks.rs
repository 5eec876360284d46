//! Waiting for kicks, in the thread that serves their queue.
//!
//! The crate `vhost-user-backend` has a thread wait for everything that may happen, and read an event
//! before each request. While a queue is served, nothing happens but its kicks: its thread waits for
//! them alone, and is called back when there is something else. The crate waits for a bell in their
//! place
//! ([decision 013](../../../../docs/decisions/013-a-thread-waits-for-its-kicks.md)).

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_getfl};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Kicks of a queue, counted by the frontend's event.
#[derive(Debug)]
pub(super) struct Kicks {
    event: File,
    /// Tells of each addition to an event whose readers are not to wait; none where they wait.
    edges: Option<Epoll>,
    /// Rings for the crate.
    bell: File,
    /// How often waiters were called back.
    calls: AtomicU64,
}

/// The right to wait, until called back.
#[derive(Debug, Clone)]
pub(super) struct Waiter {
    kicks: Arc<Kicks>,
    /// How often others were called back before.
    calls: u64,
}

impl Kicks {
    /// Those that `event` counts, and the bell, which rings when a thread waits for them no longer.
    ///
    /// # Errors
    /// When it is no event, or the host has no descriptor to spare.
    pub(super) fn of(event: &File) -> io::Result<(Self, File)> {
        let event = event.try_clone()?;
        add(&event, 0)?;
        let bell = File::from(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let edges = if fcntl_getfl(&event)?.contains(OFlags::NONBLOCK) {
            let epoll = Epoll::new()?;
            let interest = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
            epoll.ctl(ControlOperation::Add, event.as_raw_fd(), interest)?;
            Some(epoll)
        } else {
            None
        };
        let kicks = Self {
            event,
            edges,
            bell: bell.try_clone()?,
            calls: AtomicU64::new(0),
        };
        Ok((kicks, bell))
    }

    /// For a thread that is going to look at the queue now, and to wait for kicks then. Whoever changes the
    /// queue later calls it back.
    pub(super) fn waiter(self: &Arc<Self>) -> Waiter {
        Waiter {
            calls: self.calls.load(Ordering::Acquire),
            kicks: Arc::clone(self),
        }
    }

    /// Has every waiter that there is wait no longer.
    pub(super) fn call_back(&self) {
        self.calls.fetch_add(1, Ordering::AcqRel);
        // Fails only when the event is full, which takes more kicks than there are.
        let _ = add(&self.event, 1);
    }

    /// Whether the host lets it.
    fn wait(&self) -> bool {
        let waited = match &self.edges {
            Some(epoll) => epoll.wait(-1, &mut [EpollEvent::default()]).map(drop),
            None => rustix::io::read(&self.event, &mut [0; 8])
                .map(drop)
                .map_err(io::Error::from),
        };
        !waited.is_err_and(|error| error.kind() != io::ErrorKind::Interrupted)
    }
}

impl Waiter {
    /// Waits until there may be a kick that was not waited for yet. False when it was called back, or
    /// there is nothing to wait for.
    pub(super) fn wait(&self) -> bool {
        if !self.is_called_back() && self.kicks.wait() && !self.is_called_back() {
            return true;
        }
        // There may have been kicks as well. One more is always heard.
        let _ = add(&self.kicks.bell, 1);
        false
    }

    /// Has it wait no longer.
    pub(super) fn call_back(&self) {
        self.kicks.call_back();
    }

    fn is_called_back(&self) -> bool {
        self.kicks.calls.load(Ordering::Acquire) != self.calls
    }
}

/// Adds `count` to an event. Zero changes nothing, in an event.
fn add(mut event: &File, count: u64) -> io::Result<()> {
    event.write_all(&count.to_ne_bytes())
}
