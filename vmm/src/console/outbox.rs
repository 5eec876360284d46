//! Guest output on its way to the console thread.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use devices::console::Output;

use super::watch::Watch;

/// Most bytes that wait for the console thread; the guest waits beyond that.
const CAPACITY: usize = 256 << 10;

/// The console thread is woken once in this time, in the long run. A kernel writes its messages byte
/// by byte, and waking a thread for each costs several times what the byte does.
const GATHERING: Duration = Duration::from_millis(2);

/// So far ahead of that the first bytes after a silence may be: a prompt or an echo is passed on at once.
const AHEAD: Duration = Duration::from_millis(64);

/// So many bytes do not wait for more.
const PLENTY: usize = 4 << 10;

/// A bounded queue of bytes. Filled by the serial port on a vCPU thread, which blocks while it is full, or
/// by a device that waits for room; taken by the console thread, which is woken once per batch and not
/// once per byte.
pub struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
    /// Fires when a batch is not to wait; a timer takes longer to do so.
    wake: OwnedFd,
    /// Fires when a batch has waited long enough.
    timer: OwnedFd,
    /// Fires when a device that found no room can have some.
    room: OwnedFd,
}

struct State {
    bytes: Vec<u8>,
    watch: Watch,
    /// When the console thread is to be woken next, if it were woken regularly.
    due: Instant,
    /// No more bytes will come.
    closed: bool,
    /// The console thread is done: bytes are dropped.
    gone: bool,
    /// A device waits for room.
    awaited: bool,
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
                due: Instant::now(),
                closed: false,
                gone: false,
                awaited: false,
            }),
            changed: Condvar::new(),
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            timer: timerfd_create(
                TimerfdClockId::Monotonic,
                TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
            )?,
            room: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        })
    }

    /// Adds output of the guest; waits while the queue is full.
    pub fn push(&self, bytes: &[u8]) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self
            .changed
            .wait_while(state, |state| !state.takes_more())
            .unwrap_or_else(PoisonError::into_inner);
        self.add(state, bytes);
    }

    /// Adds output of the guest, or nothing while the queue is full. Returns whether it was added.
    fn offer(&self, bytes: &[u8]) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.takes_more() {
            state.awaited = true;
            return false;
        }
        self.add(state, bytes);
        true
    }

    fn add(&self, mut state: MutexGuard<'_, State>, bytes: &[u8]) {
        state.watch.see(bytes);
        if state.gone || state.closed || bytes.is_empty() {
            return;
        }
        let before = state.bytes.len();
        state.bytes.extend_from_slice(bytes);
        if before < PLENTY && state.bytes.len() >= PLENTY {
            self.wake_in(Duration::ZERO);
        } else if before == 0 {
            let now = Instant::now();
            let due = state.due.max(now);
            state.due = due.checked_add(GATHERING).unwrap_or(due);
            let early = due.saturating_duration_since(now);
            self.wake_in(early.saturating_sub(AHEAD));
        }
    }

    fn wake_in(&self, delay: Duration) {
        if delay.is_zero() {
            // It fails when the counter is full, and then the console thread is awake already.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
            return;
        }
        let setting = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: delay.subsec_nanos().into(),
            },
        };
        // The timer is our own and the time is one: the kernel has no reason to refuse.
        if let Err(error) =
            timerfd_settime(self.timer.as_fd(), TimerfdTimerFlags::empty(), &setting)
        {
            tracing::error!(%error, "the console's timer is broken: output is late");
        }
    }

    /// One of them fires when there is something to take.
    pub(super) fn wakes(&self) -> [RawFd; 2] {
        [self.wake.as_raw_fd(), self.timer.as_raw_fd()]
    }

    /// Takes everything there is.
    pub(super) fn take(&self) -> Batch {
        // Nothing to read from the one that has not fired, which does no harm.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = Batch {
            bytes: std::mem::take(&mut state.bytes),
            last: state.closed,
        };
        self.give_room(&mut state);
        batch
    }

    /// Tells those who wait that they need not.
    fn give_room(&self, state: &mut State) {
        self.changed.notify_all();
        if std::mem::take(&mut state.awaited) {
            // It fails when the counter is full, and then the device's thread is awake already.
            let _ = rustix::io::write(&self.room, &1_u64.to_ne_bytes());
        }
    }

    /// The console thread is done.
    pub(super) fn leave(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.gone = true;
        self.give_room(&mut state);
    }

    /// Ends the queue and waits until the console thread has taken the rest and left. Returns
    /// whether it did within `patience`.
    pub(super) fn close(&self, patience: Duration) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        self.give_room(&mut state);
        self.wake_in(Duration::ZERO);
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

/// The virtio console's sink.
pub struct OutboxOutput(pub Arc<Outbox>);

impl Output for OutboxOutput {
    fn offer(&mut self, bytes: &[u8]) -> usize {
        if self.0.offer(bytes) { bytes.len() } else { 0 }
    }

    fn room(&self) -> BorrowedFd<'_> {
        self.0.room.as_fd()
    }
}

impl State {
    /// Whether output is added, or dropped because nobody takes it any more.
    fn takes_more(&self) -> bool {
        self.bytes.len() < CAPACITY || self.gone || self.closed
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::time::timerfd_gettime;

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

    fn fires(outbox: &Outbox) -> bool {
        let mut fds = [
            PollFd::new(&outbox.wake, PollFlags::IN),
            PollFd::new(&outbox.timer, PollFlags::IN),
        ];
        let patience = Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&patience)).unwrap() > 0
    }

    #[test]
    fn console_thread_is_woken_for_a_byte_as_for_many() {
        let outbox = outbox();
        for count in [1, PLENTY, PLENTY + 1, 1] {
            outbox.push(&vec![b'x'; count]);
            assert!(fires(&outbox), "{count}");
            assert_eq!(outbox.take().bytes.len(), count);
        }
        assert!(!outbox.close(Duration::ZERO));
        assert!(fires(&outbox));
        assert!(outbox.take().last);
    }

    #[test]
    fn bytes_of_a_talkative_guest_are_gathered() {
        const HOUR: Duration = Duration::from_secs(3600);
        let outbox = outbox();
        outbox.state.lock().unwrap().due += HOUR;
        outbox.push(b"mess");
        outbox.push(b"age");
        let left = timerfd_gettime(&outbox.timer).unwrap().it_value;
        assert!(left.tv_sec > 0);
        outbox.push(&[b' '; PLENTY]);
        assert!(fires(&outbox));
        assert_eq!(outbox.take().bytes.len(), "message".len() + PLENTY);
    }

    #[test]
    fn device_that_finds_no_room_is_told_when_there_is_some() {
        let outbox = outbox();
        let mut output = OutboxOutput(outbox.clone());
        let told = || rustix::io::read(&outbox.room, &mut [0; 8]).is_ok();
        assert_eq!(output.offer(&vec![b'x'; CAPACITY]), CAPACITY);
        assert!(!told());
        assert_eq!(output.offer(b"more"), 0);
        assert_eq!(outbox.take().bytes.len(), CAPACITY);
        assert!(told());
        assert_eq!(output.offer(b"more"), 4);
        outbox.take();
        assert!(!told(), "nobody waits any more");
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
