//! Where the output of a console under test goes.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::console::Output;

/// Takes output up to a limit. Clones share it.
#[derive(Debug, Clone)]
pub struct Sink {
    taken: Arc<Mutex<(Vec<u8>, usize)>>,
    room: Arc<OwnedFd>,
}

impl Sink {
    /// Takes `room` bytes, and no more until told.
    ///
    /// # Panics
    /// When the host refuses an eventfd.
    pub fn new(room: usize) -> Self {
        let fired = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        Self {
            taken: Arc::new(Mutex::new((Vec::new(), room))),
            room: Arc::new(fired.unwrap()),
        }
    }

    /// Takes `more` bytes besides, and says so.
    pub fn make_room(&self, more: usize) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.1 = taken.1.saturating_add(more);
        let _ = rustix::io::write(&*self.room, &1_u64.to_ne_bytes());
    }

    /// What was taken so far.
    pub fn bytes(&self) -> Vec<u8> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.0.clone()
    }
}

impl Output for Sink {
    fn offer(&mut self, bytes: &[u8]) -> usize {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = bytes.len().min(taken.1);
        taken.0.extend(bytes.iter().take(count));
        taken.1 -= count;
        count
    }

    fn room(&self) -> BorrowedFd<'_> {
        self.room.as_fd()
    }
}
