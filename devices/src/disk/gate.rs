//! Keeps new requests off an image for a moment, without ending the thread that serves them.
//!
//! ```text
//! worker attends ─▶ serves ──close──▶ nothing in flight, nothing begins ──open──▶ serves … ─▶ gone
//! ```
//!
//! Both sides only look and tell: the worker goes on serving its other events while the gate is
//! closed, so that it can be stopped then. Whoever closes waits, for a limited time.
//!
//! Not here: what happens to the image meanwhile, and how a worker completes what is in flight.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Why requests on an image did not stop. The gate is open then.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// Something stayed in flight.
    #[error("Requests of the disk were in flight for {} ms", limit.as_millis())]
    Busy {
        /// How long they had.
        limit: Duration,
    },
    /// The engine failed with requests in flight.
    #[error("The disk's engine failed: its guest has to reset the device")]
    Broken,
}

/// The gate of one image, between its worker and whoever needs the image to stand still.
#[derive(Debug)]
pub struct Gate {
    event: Arc<EventFd>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    closed: bool,
    worker: Attending,
}

/// What the image's worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attending {
    /// There is none.
    Nobody,
    /// It may have requests in flight.
    Serving,
    /// Nothing is in flight, and it begins nothing.
    Standing,
    /// It has requests in flight that will not end.
    Broken,
}

/// What a worker finds when it looks at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// It may begin requests.
    Open,
    /// It completes what is in flight, says so, and begins nothing.
    Closed,
}

impl Gate {
    /// An open gate, attended by nobody.
    ///
    /// # Errors
    /// When the host refuses a descriptor.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            event: Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?),
            state: Mutex::new(State {
                closed: false,
                worker: Attending::Nobody,
            }),
            changed: Condvar::new(),
        })
    }

    /// Closes it and waits until nothing is in flight, but no longer than `limit`. For one caller
    /// at a time.
    ///
    /// # Errors
    /// When something stays in flight; it is open again then.
    pub fn close(&self, limit: Duration) -> Result<Closed<'_>, GateError> {
        let mut state = self.lock();
        state.closed = true;
        let closed = Closed(self);
        self.wake();
        let waited = self
            .changed
            .wait_timeout_while(state, limit, |state| state.worker == Attending::Serving);
        let attending = waited.unwrap_or_else(PoisonError::into_inner).0.worker;
        match attending {
            Attending::Nobody | Attending::Standing => Ok(closed),
            Attending::Serving => Err(GateError::Busy { limit }),
            Attending::Broken => Err(GateError::Broken),
        }
    }

    /// Fires when the worker should look: the gate was opened or closed, or something that it holds
    /// back may go on. Never read; wait for it edge-triggered.
    pub(crate) fn event(&self) -> &Arc<EventFd> {
        &self.event
    }

    /// For the worker, when it is told to.
    pub(crate) fn look(&self) -> Look {
        match self.lock().closed {
            true => Look::Closed,
            false => Look::Open,
        }
    }

    /// For the worker: nothing is in flight, and it begins nothing before it finds the gate open.
    pub(crate) fn stand(&self) {
        self.settle(Attending::Standing);
    }

    /// For the worker: what is in flight will not end.
    pub(crate) fn fail(&self) {
        self.settle(Attending::Broken);
    }

    fn settle(&self, worker: Attending) {
        let mut state = self.lock();
        // Opened meanwhile: it is not needed any more, and would be a lie at the next closing.
        if state.closed || worker == Attending::Broken {
            state.worker = worker;
        }
        self.changed.notify_all();
    }

    fn open(&self) {
        let mut state = self.lock();
        state.closed = false;
        if state.worker == Attending::Standing {
            state.worker = Attending::Serving;
        }
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then the worker is awake already.
        let _ = self.event.write(1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A closed gate; dropped, it is open.
#[derive(Debug)]
pub struct Closed<'a>(&'a Gate);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// The presence of a worker at a gate, as long as it is there.
#[derive(Debug)]
pub(super) struct Attendance(Arc<super::RawDisk>);

impl Attendance {
    pub(super) fn at(image: Arc<super::RawDisk>) -> Self {
        image.gate().lock().worker = Attending::Serving;
        Self(image)
    }

    pub(super) fn image(&self) -> &Arc<super::RawDisk> {
        &self.0
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        let gate = self.0.gate();
        gate.lock().worker = Attending::Nobody;
        gate.changed.notify_all();
    }
}
