//! Guest output on its way to the console thread.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::watch::Watch;

/// Most bytes that wait for the console thread; the guest waits beyond that.
const CAPACITY: usize = 256 << 10;

/// A bounded queue of bytes. Filled on a vCPU thread, which blocks while it is full; taken by the
/// console thread, which is woken once per batch and not once per byte.
pub struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
    wake: EventFd,
}

struct State {
    bytes: Vec<u8>,
    watch: Watch,
    /// No more bytes will come.
    closed: bool,
    /// The console thread is done: bytes are dropped.
    gone: bool,
}

/// What the console thread took.
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// Nothing will follow.
    pub(super) last: bool,
}

impl Outbox {
    pub(super) fn new(watch: Watch) -> io::Result<Self> {
        Ok(Self {
            state: Mutex::new(State {
                bytes: Vec::new(),
                watch,
                closed: false,
                gone: false,
            }),
            changed: Condvar::new(),
            wake: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Adds output of the guest; waits while the queue is full.
    pub fn push(&self, bytes: &[u8]) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self
            .changed
            .wait_while(state, |state| {
                state.bytes.len() >= CAPACITY && !state.gone && !state.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        state.watch.see(bytes);
        if state.gone || state.closed {
            return;
        }
        let wake = state.bytes.is_empty();
        state.bytes.extend_from_slice(bytes);
        if wake {
            let _ = self.wake.write(1);
        }
    }

    /// Fires when there is something to take.
    pub(super) fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// Takes everything there is.
    pub(super) fn take(&self) -> Batch {
        let _ = self.wake.read();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = Batch {
            bytes: std::mem::take(&mut state.bytes),
            last: state.closed,
        };
        self.changed.notify_all();
        batch
    }

    /// The console thread is done.
    pub(super) fn leave(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.gone = true;
        self.changed.notify_all();
    }

    /// Ends the queue and waits until the console thread has taken the rest and left. Returns
    /// whether it did within `patience`.
    pub(super) fn close(&self, patience: Duration) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        self.changed.notify_all();
        let _ = self.wake.write(1);
        let (state, _) = self
            .changed
            .wait_timeout_while(state, patience, |state| !state.gone)
            .unwrap_or_else(PoisonError::into_inner);
        state.gone
    }
}

/// The serial port's sink.
pub struct OutboxWriter(pub Arc<Outbox>);

impl Write for OutboxWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;
    use crate::events::event_channel;
    use crate::phases::Phases;
    use crate::readiness::{Board, Criterion};

    fn outbox() -> Arc<Outbox> {
        let phases = Arc::new(Phases::since(Instant::now()));
        let (events, _queue) = event_channel(phases.clone()).unwrap();
        let board = Board::new(Criterion::Running, None, phases.clone()).unwrap();
        Arc::new(Outbox::new(Watch::new(events, phases, Arc::new(board))).unwrap())
    }

    #[test]
    fn guest_waits_while_the_queue_is_full_and_loses_nothing() {
        let outbox = outbox();
        let writer = outbox.clone();
        let guest = thread::spawn(move || {
            for _ in 0..3 {
                writer.push(&vec![b'x'; CAPACITY]);
            }
        });
        let mut taken = 0;
        while taken < 3 * CAPACITY {
            let batch = outbox.take();
            assert!(batch.bytes.len() <= 2 * CAPACITY);
            taken += batch.bytes.len();
            thread::yield_now();
        }
        guest.join().unwrap();
    }

    #[test]
    fn close_without_a_listener_gives_up() {
        let outbox = outbox();
        outbox.push(b"last words");
        assert!(!outbox.close(Duration::from_millis(1)));
        outbox.push(b"dropped");
        assert_eq!(outbox.take().bytes, b"last words");
    }
}
