//! Input on its way to the guest.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Most bytes that wait for the guest; more is the host's to keep.
const CAPACITY: usize = 4 << 10;

/// A bounded queue of bytes from the host to the device's thread.
#[derive(Debug)]
pub struct Input {
    state: Mutex<State>,
    /// Whether a driver serves the device.
    heard: AtomicBool,
    arrived: EventFd,
    space: EventFd,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    /// An `enqueue` left bytes over and waits for room.
    waiting: bool,
}

impl Input {
    /// An empty queue.
    ///
    /// # Errors
    /// When the host refuses an eventfd.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            heard: AtomicBool::new(false),
            arrived: EventFd::new(EFD_NONBLOCK)?,
            space: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Gives the guest input. Returns how many bytes fit, from the start of `input`; the rest is the
    /// caller's to keep until [`space`](Self::space) fires.
    pub fn enqueue(&self, input: &[u8]) -> usize {
        let mut state = self.lock();
        let taken = input.len().min(CAPACITY.saturating_sub(state.bytes.len()));
        state.bytes.extend(input.iter().take(taken));
        state.waiting = taken < input.len();
        // Writes only fail when the counter is full, and then the reader is awake already.
        let _ = self.arrived.write(1);
        taken
    }

    /// Fires when there is room again after an [`enqueue`](Self::enqueue) that left bytes over.
    /// Non-blocking.
    pub fn space(&self) -> &EventFd {
        &self.space
    }

    /// Whether the guest has a driver that takes input. Until it has, a serial port is all that a guest
    /// listens to.
    pub fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Acquire)
    }

    pub(super) fn set_heard(&self, heard: bool) {
        self.heard.store(heard, Ordering::Release);
    }

    /// Fires when there may be something to take.
    pub(super) fn arrived(&self) -> &EventFd {
        &self.arrived
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().bytes.is_empty()
    }

    /// Fills `room` from the start. Returns how many bytes there were.
    pub(super) fn take(&self, room: &mut [u8]) -> usize {
        let mut state = self.lock();
        let count = room.len().min(state.bytes.len());
        for (slot, byte) in room.iter_mut().zip(state.bytes.drain(..count)) {
            *slot = byte;
        }
        if count > 0 && std::mem::take(&mut state.waiting) {
            let _ = self.space.write(1);
        }
        count
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told_and_room_is_announced_once() {
        let input = Input::new().unwrap();
        let bytes = vec![7; CAPACITY + 100];
        assert_eq!(input.enqueue(&bytes), CAPACITY);
        assert_eq!(input.enqueue(&bytes), 0);
        assert!(input.space().read().is_err(), "no room yet");
        let mut room = [0; 64];
        assert_eq!(input.take(&mut room), 64);
        assert_eq!(input.space().read().unwrap(), 1);
        assert_eq!(input.take(&mut room), 64);
        assert!(input.space().read().is_err(), "nobody waits any more");
        assert_eq!(input.enqueue(&bytes[..100]), 100);
    }

    #[test]
    fn bytes_come_in_order() {
        let input = Input::new().unwrap();
        input.enqueue(b"hello ");
        input.enqueue(b"world");
        let mut room = [0; 8];
        assert_eq!(input.take(&mut room), 8);
        assert_eq!(&room, b"hello wo");
        assert_eq!(input.take(&mut room), 3);
        assert!(input.is_empty());
    }
}
