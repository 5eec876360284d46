//! The thread of an active share: starts the backend on the queues, and notices when it dies.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::link::Link;
use super::queues::Queues;
use super::refuse::refuse_all;
use crate::device::{Activation, ActiveQueue, Memory};
use crate::interrupt::Interrupt;
use crate::log_limit::LogLimit;
use crate::vhost_user::{Connection, Lines, VhostUserError};
use crate::worker::{Handler, Source};

/// The one source of the event loop: a set of descriptors that changes while the loop runs.
const CHANGED: u32 = 0;

/// Members of that set. Queues follow, by their place among the active ones.
const SOCKET: u64 = 0;
const RING_ERROR: u64 = 1;
const FIRST_KICK: u64 = 2;

/// Events taken from the set at once; what is left comes in the next round.
const EVENTS: usize = 8;

static FAULTS: LogLimit = LogLimit::new();

/// Who answers the driver's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The backend.
    Serving,
    /// This thread, with an error.
    Refusing,
    /// Nobody: a ring is broken.
    Broken,
}

/// An active share. Owns its queues and the way to its backend.
pub(super) struct Watch {
    link: Link,
    memory: Memory,
    features: u64,
    interrupt: Arc<dyn Interrupt>,
    queues: Queues,
    /// Interrupts the driver; the backend has it as well.
    call: EventFd,
    /// Fires when the backend finds a ring broken.
    error: EventFd,
    watched: Epoll,
    mode: Mode,
}

/// The host refused a descriptor; the link is as it was.
pub(super) struct NotWatched {
    pub(super) link: Link,
    pub(super) source: io::Error,
}

impl Watch {
    pub(super) fn new(link: Link, run: Activation) -> Result<Self, Box<NotWatched>> {
        match lines(&run) {
            Ok((call, error, watched)) => Ok(Self {
                link,
                memory: run.memory,
                features: run.features,
                interrupt: run.interrupt,
                queues: Queues::new(run.queues),
                call,
                error,
                watched,
                mode: Mode::Serving,
            }),
            Err(source) => Err(Box::new(NotWatched { link, source })),
        }
    }

    /// The way to the backend, and the queues where they were left.
    pub(super) fn into_parts(self) -> (Link, Vec<ActiveQueue>) {
        (self.link, self.queues.into_inner())
    }

    /// Lets a backend serve the queues, or answers in its place.
    fn serve(&mut self) {
        while let Err(error) = self.hand_over() {
            self.link.lost(&error);
            // It may have had some queues already, and served them.
            Connection::recover(&self.memory, &mut self.queues);
            if !self.link.may_restart(Instant::now()) {
                return self.refuse_from_now_on();
            }
        }
        // Kicks that a backend took and did not serve are lost, those before it started included.
        for active in &*self.queues {
            // The write only fails when the counter is full, and then the kick is there already.
            let _ = active.kick.write(1);
        }
    }

    fn hand_over(&mut self) -> Result<(), VhostUserError> {
        let lines = Lines {
            call: &self.call,
            error: &self.error,
        };
        self.queues.take_back();
        // Nothing is lost: every queue is kicked once the backend serves it. Some complain about
        // kicks that come before they are ready.
        for active in &*self.queues {
            let _ = active.kick.read();
        }
        if self.link.reads_wait() {
            self.queues.lend();
        }
        let connection = self.link.connection()?;
        connection.start(&self.memory, self.features, &self.queues, &lines)?;
        let socket = connection.as_raw_fd();
        watch(&self.watched, socket, EventSet::READ_HANG_UP, SOCKET)
            .map_err(VhostUserError::Connect)
    }

    /// A closed socket leaves the set by itself.
    fn backend_died(&mut self) {
        self.link.lost(&Hangup);
        Connection::recover(&self.memory, &mut self.queues);
        match self.mode {
            Mode::Serving if self.link.may_restart(Instant::now()) => self.serve(),
            Mode::Serving => self.refuse_from_now_on(),
            Mode::Refusing | Mode::Broken => {}
        }
    }

    fn refuse_from_now_on(&mut self) {
        self.mode = Mode::Refusing;
        self.queues.take_back();
        self.interrupt.needs_reset();
        tracing::warn!(
            device = %self.link.id(),
            "nobody serves this share until its driver resets it: every request fails"
        );
        for (place, active) in (0..).zip(&*self.queues) {
            let kick = active.kick.as_raw_fd();
            if let Err(error) = watch(&self.watched, kick, EventSet::IN, FIRST_KICK + place) {
                tracing::error!(%error, "a queue of the share is answered by nobody");
            }
        }
        for place in 0..self.queues.len() {
            self.refuse(place);
        }
    }

    fn refuse(&mut self, place: usize) {
        let Some(active) = self.queues.get_mut(place) else {
            return;
        };
        // Fails when the kick was taken back by a reset.
        let _ = active.kick.read();
        if self.mode != Mode::Refusing {
            return;
        }
        match refuse_all(active, &self.memory) {
            Ok(refused) => {
                if refused.interrupt {
                    self.interrupt.signal_queue(active.index);
                }
                if refused.again {
                    // Through the event loop, so that a stop gets its turn as well. The write only
                    // fails when the counter is full, and then the loop is awake already.
                    let _ = active.kick.write(1);
                }
            }
            Err(fault) => self.ring_broke(&fault),
        }
    }

    fn ring_broke(&mut self, fault: &(dyn std::error::Error + 'static)) {
        self.mode = Mode::Broken;
        self.interrupt.needs_reset();
        if let Some(count) = FAULTS.next() {
            tracing::warn!(device = %self.link.id(), count, error = fault, "the driver of a share broke the protocol");
        }
    }

    fn happened(&mut self, member: u64) {
        match member {
            SOCKET => self.backend_died(),
            RING_ERROR => {
                // Readable, or it would not be reported.
                let _ = self.error.read();
                self.ring_broke(&Reported);
            }
            kick => {
                let place = kick.saturating_sub(FIRST_KICK);
                self.refuse(usize::try_from(place).unwrap_or(usize::MAX));
            }
        }
    }
}

/// The interrupt line, the error line, and the set of descriptors with the latter in it.
fn lines(run: &Activation) -> io::Result<(EventFd, EventFd, Epoll)> {
    let call = run.interrupt.external()?;
    let error = EventFd::new(EFD_NONBLOCK)?;
    let watched = Epoll::new()?;
    watch(&watched, error.as_raw_fd(), EventSet::IN, RING_ERROR)?;
    Ok((call, error, watched))
}

fn watch(set: &Epoll, fd: i32, events: EventSet, member: u64) -> io::Result<()> {
    set.ctl(ControlOperation::Add, fd, EpollEvent::new(events, member))
}

impl Handler for Watch {
    fn sources(&self) -> Vec<Source> {
        vec![Source::readable(&self.watched, CHANGED)]
    }

    fn start(&mut self) {
        self.serve();
    }

    fn handle(&mut self, _token: u32) {
        let mut events = [EpollEvent::default(); EVENTS];
        // An interrupted wait is repeated, as the set stays readable.
        let count = self.watched.wait(0, &mut events).unwrap_or(0);
        for event in events.iter().take(count) {
            self.happened(event.data());
        }
    }

    fn drain(&mut self) {
        if self.mode == Mode::Refusing {
            return;
        }
        let Some(connection) = &mut self.link.connection else {
            return;
        };
        if let Err(error) = connection.stop(&self.memory, &mut self.queues) {
            self.link.lost(&error);
            Connection::recover(&self.memory, &mut self.queues);
        }
    }
}

/// The end of a backend, as far as anybody here knows.
#[derive(Debug, thiserror::Error)]
#[error("Backend closed its socket")]
struct Hangup;

/// What a backend reported through the error line.
#[derive(Debug, thiserror::Error)]
#[error("Backend found a ring broken")]
struct Reported;
