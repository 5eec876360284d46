//! The control loop's view: what changed, what time it is, and what to tell whom.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::board::Board;
use super::state::{Readiness, ReadyState};
use super::supervisor::{Notice, Supervision, Supervisor};

/// Least time between two notices that only change words: a guest reaches targets as fast as it
/// likes, and the supervisor is often the host's first process.
const PAUSE: Duration = Duration::from_millis(200);

/// How much longer a start may take after progress, when the slot sets no limit itself.
const EXTENSION: Duration = Duration::from_secs(90);

/// How long a guest that is given up may take to power off.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// What the machine does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Goes on.
    GoOn,
    /// Asks its guest to power off: somebody waits for it to be ready, and it never will be.
    GiveUp,
    /// Ends: the guest was given up, and did not power off.
    End,
}

/// What was told already, and what is next.
#[derive(Debug, Default)]
pub(super) struct Teller {
    status: String,
    ready: bool,
    stopping: bool,
    /// No mere change of words before this.
    hold: Option<Instant>,
}

impl Teller {
    /// What to tell about `readiness` at `now`, with `left` until the guest's time is over.
    /// Returns the notices, and when to look again although nothing changes.
    pub(super) fn tell(
        &mut self,
        now: Instant,
        readiness: &Readiness,
        left: Option<Duration>,
    ) -> (Vec<Notice>, Option<Instant>) {
        let (state, status) = (readiness.state(), readiness.status());
        let mut notices = Vec::new();
        match state {
            ReadyState::Ready if !self.ready => {
                self.ready = true;
                notices.push(Notice::Ready);
            }
            ReadyState::Stopping if !self.stopping => {
                self.stopping = true;
                notices.push(Notice::Stopping);
            }
            _ => {}
        }
        let waits = matches!(state, ReadyState::Booting | ReadyState::Ready);
        if status == self.status {
            return (notices, None);
        }
        if let Some(hold) = self.hold.filter(|hold| *hold > now)
            && notices.is_empty()
            && waits
        {
            return (notices, Some(hold));
        }
        if state == ReadyState::Booting {
            let left = left.map_or(EXTENSION, |left| left.saturating_add(2 * GRACE));
            notices.push(Notice::ExtendTimeout(left));
        }
        self.status.clone_from(&status);
        notices.push(Notice::Status(status));
        self.hold = now.checked_add(PAUSE);
        (notices, None)
    }

    /// Whether the supervisor was told that the guest is ready.
    fn has_told_ready(&self) -> bool {
        self.ready
    }
}

/// Readiness, watchdog and their clock. Owned by the control loop.
pub(crate) struct Watch {
    board: Arc<Board>,
    supervisor: Option<Box<dyn Supervisor>>,
    teller: Teller,
    /// When the guest has to be ready.
    deadline: Option<Instant>,
    /// When a guest that was given up has to be gone.
    given_up: Option<Instant>,
    /// When to look at the board without a change of it.
    again: Option<Instant>,
    /// How often, and when next, to say that the machine is responsive.
    beat: Option<(Duration, Instant)>,
    timer: OwnedFd,
}

impl Watch {
    /// Starts the clock of `supervision`.
    ///
    /// # Errors
    /// When the host refuses a timer.
    pub(crate) fn new(board: Arc<Board>, supervision: Supervision) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let now = Instant::now();
        // Three times in the period, so that one late answer is no end.
        let beat = supervision
            .watchdog
            .map(|period| (period / 3, now + period / 3));
        Ok(Self {
            board,
            deadline: supervision.timeout.and_then(|time| now.checked_add(time)),
            supervisor: supervision.supervisor,
            teller: Teller::default(),
            given_up: None,
            again: None,
            beat,
            timer,
        })
    }

    /// The board's descriptor and the timer's.
    pub(crate) fn descriptors(&self) -> [RawFd; 2] {
        [self.board.changed().as_raw_fd(), self.timer.as_raw_fd()]
    }

    /// What is known of the guest.
    pub(crate) fn readiness(&self) -> Readiness {
        self.board.look()
    }

    /// Whether the guest was given up.
    pub(crate) fn has_given_up(&self) -> bool {
        self.given_up.is_some()
    }

    /// Whether it is time to find out if the machine is responsive; the next time is set.
    pub(crate) fn takes_pulse(&mut self) -> bool {
        let now = Instant::now();
        let Some((period, next)) = &mut self.beat else {
            return false;
        };
        let due = *next <= now;
        if due {
            *next = now + *period;
        }
        due
    }

    /// The machine is responsive.
    pub(crate) fn beat(&mut self) {
        self.notify(&[Notice::Watchdog]);
    }

    /// The guest was asked to power off, whatever it says itself.
    pub(crate) fn stopping(&mut self) {
        if std::mem::replace(&mut self.teller.stopping, true) {
            return;
        }
        let mut notices = vec![Notice::Stopping];
        // Why a guest was given up stays to be read.
        if !self.has_given_up() {
            let status = "stopping: the guest was asked to power off";
            notices.push(Notice::Status(status.to_owned()));
        }
        self.notify(&notices);
    }

    /// Looks at the board and the clock, and tells what is new. To be called when one of the
    /// descriptors can be read, and once at the start.
    pub(crate) fn look(&mut self) -> Step {
        let now = Instant::now();
        let _ = self.board.changed().read();
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.board.time_out();
        }
        let readiness = self.board.look();
        let left = self
            .deadline
            .map(|deadline| deadline.saturating_duration_since(now));
        if !self.has_given_up() {
            let (notices, again) = self.teller.tell(now, &readiness, left);
            self.again = again;
            self.notify(&notices);
        }
        let step = self.step(now, readiness.state());
        self.set_timer(now);
        step
    }

    fn step(&mut self, now: Instant, state: ReadyState) -> Step {
        if let Some(end) = self.given_up {
            return if end <= now { Step::End } else { Step::GoOn };
        }
        let never = matches!(state, ReadyState::Emergency | ReadyState::TimedOut);
        // Without a supervisor nobody waits, and somebody may want to repair the guest.
        if !never || self.supervisor.is_none() || self.teller.has_told_ready() {
            return Step::GoOn;
        }
        self.given_up = Some(now + GRACE);
        Step::GiveUp
    }

    fn notify(&mut self, notices: &[Notice]) {
        if let Some(supervisor) = &mut self.supervisor
            && !notices.is_empty()
        {
            supervisor.notify(notices);
        }
    }

    /// Has the timer fire when something is due next.
    fn set_timer(&mut self, now: Instant) {
        let beat = self.beat.map(|(_, next)| next);
        let dues = [self.deadline, self.given_up, self.again, beat];
        // Zero would switch the timer off.
        let wait = dues
            .into_iter()
            .flatten()
            .min()
            .map_or(Duration::ZERO, |due| {
                due.saturating_duration_since(now)
                    .max(Duration::from_micros(1))
            });
        let setting = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(wait.subsec_nanos()),
            },
        };
        if let Err(error) =
            timerfd_settime(self.timer.as_fd(), TimerfdTimerFlags::empty(), &setting)
        {
            tracing::warn!(%error, "No timer: neither watchdog nor time limit of the boot");
        }
    }
}
