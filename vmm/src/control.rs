//! The control thread: one event loop, the only place that changes a machine's state.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devices::disk::Preservation;
use devices::failpoint;
use devices::notify::Shutdown;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::api::{self, Reply, Request, RequestError, SnapshotRequest, Verb};
use crate::events::{Event, EventQueue, EventSender};
use crate::footprint;
use crate::lifecycle::{Outcome, VmState};
use crate::readiness::{Step, Watch};
use crate::running::Running;
use crate::signals::StopSignals;
use crate::snapshot::{Job, Pause, SnapshotOrder, SnapshotRefusal, micros};
use crate::vm::RunError;

/// Between two presses of the power button: while a guest boots, nobody in it may notice the
/// first one.
const PRESS_AGAIN: Duration = Duration::from_secs(3);

/// How long nothing happens, in milliseconds, when a start is over.
const QUIET_MS: i32 = 100;

const WAKE: u32 = 0;
const SIGNAL: u32 = 1;
const TIMER: u32 = 2;
const READINESS: u32 = 3;

/// Who may want something of a machine besides its guest.
pub(crate) struct Callers {
    /// Presses of the power button.
    pub(crate) signals: StopSignals,
    /// Who waits for the guest.
    pub(crate) watch: Watch,
    /// The bound control socket.
    pub(crate) socket: Option<UnixListener>,
}

/// Serves everything that can happen to `running` until the guest has ended.
pub(crate) fn run(
    running: Running,
    (queue, events): (EventQueue, EventSender),
    callers: Callers,
) -> Result<Outcome, RunError> {
    let Callers {
        signals,
        watch,
        socket,
    } = callers;
    let press_timer = timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
    )
    .map_err(|error| RunError::Control(error.into()))?;
    let mut manager = EventManager::<Control>::new().map_err(control_error)?;
    let id = manager.add_subscriber(Control {
        running,
        events: events.clone(),
        queue,
        snapshot: None,
        signals,
        watch,
        press_timer,
        signalled: false,
        ended: None,
    });
    let control = manager.subscriber_mut(id).map_err(control_error)?;
    control.start();
    if let Some(socket) = socket {
        // Here, because the guest does not wait for it; whoever connected before does.
        control.serve(socket, events);
    }
    let mut settled = false;
    while !manager.subscriber_mut(id).map_err(control_error)?.is_done() {
        if settled {
            manager.run().map_err(control_error)?;
        } else {
            let happened = manager.run_with_timeout(QUIET_MS).map_err(control_error)?;
            settled = happened == 0;
            if settled {
                settle();
            }
        }
    }
    let control = manager.remove_subscriber(id).map_err(control_error)?;
    let ended = control.ended.unwrap_or(Ok(Outcome::Killed));
    let state = if ended.is_ok() {
        VmState::Stopped
    } else {
        VmState::Failed
    };
    if let (Some(job), Err(_) | Ok(Outcome::Killed)) = (&control.snapshot, &ended) {
        job.give_up();
    }
    control.running.finish(state);
    if let Some(job) = control.snapshot {
        job.finish();
    }
    ended
}

/// Gives back what only starting needed. Not at once: the guest's first exits would fault it in again.
fn settle() {
    if let Err(error) = footprint::release_text() {
        tracing::debug!(%error, "Text that only starting needed stays in memory");
    }
}

fn control_error(error: event_manager::Error) -> RunError {
    RunError::Control(io::Error::other(error))
}

struct Control {
    running: Running,
    /// For the threads it starts.
    events: EventSender,
    queue: EventQueue,
    /// The last snapshot that was begun.
    snapshot: Option<Job>,
    signals: StopSignals,
    watch: Watch,
    press_timer: OwnedFd,
    /// Whether a stop signal came before.
    signalled: bool,
    /// How it ended, once it has.
    ended: Option<Result<Outcome, RunError>>,
}

impl Control {
    fn start(&mut self) {
        if let Err(error) = self.running.start() {
            self.end(Err(RunError::Control(io::Error::other(error))));
        }
        self.watch();
    }

    fn serve(&mut self, socket: UnixListener, events: EventSender) {
        if let Err(error) = api::serve(socket, events) {
            self.end(Err(RunError::Control(error)));
        }
    }

    /// The first end counts: what follows is its consequence. A guest that was given up did not
    /// end well, however it did.
    fn end(&mut self, how: Result<Outcome, RunError>) {
        let how = match how {
            Ok(Outcome::Poweroff | Outcome::Killed) if self.watch.has_given_up() => {
                Ok(Outcome::NotReady)
            }
            how => how,
        };
        if self.ended.is_none() {
            self.ended = Some(how);
            if !self.is_done() {
                // What of it still runs has nothing left to do.
                self.running.vcpus.pause();
            }
        }
    }

    /// Whether nothing is left to wait for. A guest that ended by itself or was asked to has its
    /// snapshot completed, since the asker waits for it; until then all that can happen goes on to be served.
    fn is_done(&self) -> bool {
        match (&self.ended, &self.snapshot) {
            (None, _) => false,
            (Some(Ok(outcome)), Some(job)) if *outcome != Outcome::Killed => job.is_over(),
            _ => true,
        }
    }

    /// The guest reset the machine, or ran into a triple fault: `seen` is what that looks like.
    /// When its systemd has said what it is about to do, that is what it is, since there are
    /// machines and kernels on which a reboot is a triple fault, or a power-off a reset.
    fn reset(&mut self, seen: Outcome) {
        let outcome = match self.watch.readiness().shutdown() {
            // A panicked kernel resets the machine by whatever means it finds.
            _ if self.running.panicked => Outcome::Panic,
            Some(Shutdown::Poweroff) => Outcome::Poweroff,
            Some(Shutdown::Reboot) => Outcome::Reboot,
            _ => seen,
        };
        self.end(Ok(outcome));
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::GuestPoweroff => self.end(Ok(Outcome::Poweroff)),
            Event::GuestPanic => self.running.panicked = true,
            Event::GuestReset => self.reset(Outcome::Reboot),
            Event::TripleFault { vcpu } => {
                tracing::warn!(vcpu, "triple fault");
                self.reset(Outcome::TripleFault);
            }
            Event::VcpuFailed { vcpu, reason } => self.end(Err(RunError::Vcpu { vcpu, reason })),
            Event::Request(Request { verb, reply }) => {
                // A requester that has gone away does not matter.
                let _ = reply.send(self.obey(verb));
            }
            Event::Snapshot(request) => {
                let SnapshotRequest { order, reply } = *request;
                let _ = reply.send(self.begin_snapshot(order));
            }
            Event::SnapshotReady(preservation) => self.take_snapshot(preservation),
            // The loop looks whether that was all.
            Event::SnapshotOver => {}
        }
    }

    fn obey(&mut self, verb: Verb) -> Result<Reply, RequestError> {
        match verb {
            Verb::Info => {
                let readiness = self.watch.readiness().info();
                let snapshot = self.snapshot.as_ref().and_then(Job::info);
                let info = self.running.info(readiness, snapshot);
                return Ok(Reply::Info(Box::new(info)));
            }
            Verb::Shutdown | Verb::Reset if self.ended.is_some() => self.give_snapshot_up(),
            // It was pressed, or need not be.
            Verb::PowerButton if self.ended.is_some() => {}
            Verb::Pause | Verb::Resume if self.ended.is_some() => return Err(RequestError::Ending),
            Verb::Pause => self.running.pause()?,
            Verb::Resume => self.running.resume()?,
            Verb::PowerButton => self.press()?,
            Verb::Reset => self.end(Ok(Outcome::Reboot)),
            Verb::Shutdown => self.end(Ok(Outcome::Killed)),
        }
        Ok(Reply::Done)
    }

    fn give_snapshot_up(&self) {
        if let Some(job) = &self.snapshot {
            job.give_up();
        }
    }

    fn begin_snapshot(&mut self, order: SnapshotOrder) -> Result<Reply, RequestError> {
        if self.ended.is_some() {
            return Err(RequestError::Ending);
        }
        if self.snapshot.as_ref().is_some_and(|job| !job.is_over()) {
            return Err(SnapshotRefusal::Busy.into());
        }
        let disk = self.running.image(&order.spec.disk)?;
        failpoint::pass("asked");
        self.snapshot = Some(Job::begin(order, disk, self.events.clone())?);
        Ok(Reply::Done)
    }

    /// Halts the guest for as long as it takes to decide the snapshot's content. A machine that is
    /// paused already stays paused.
    fn take_snapshot(&mut self, preservation: Arc<Preservation>) {
        let Some(job) = &mut self.snapshot else {
            return;
        };
        if self.ended.is_some() {
            return job.refused("its guest has ended".to_owned());
        }
        if self.running.state == VmState::Paused {
            job.take(preservation);
            return job.taken(None);
        }
        let began = Instant::now();
        if let Err(error) = self.running.halt() {
            return job.refused(error.to_string());
        }
        failpoint::pass("halted");
        let halted = Instant::now();
        job.take(preservation);
        failpoint::pass("armed");
        let decided = Instant::now();
        match self.running.go_on() {
            Ok(()) => job.taken(Some(Pause {
                drain_us: 0,
                total_us: micros(began.elapsed()),
                halt_us: micros(halted.duration_since(began)),
                decide_us: micros(decided.duration_since(halted)),
                resume_us: micros(decided.elapsed()),
            })),
            // Never: a machine that was just halted can go on.
            Err(error) => job.refused(error.to_string()),
        }
    }

    /// The first stop signal presses the power button; the second one does not ask any more.
    fn signalled(&mut self) {
        while let Some(signal) = self.signals.take() {
            if std::mem::replace(&mut self.signalled, true) {
                tracing::warn!(signal, "second stop signal: the guest is stopped hard");
                self.give_snapshot_up();
                self.end(Ok(Outcome::Killed));
            } else if self.ended.is_none()
                && let Err(error) = self.press()
            {
                tracing::warn!(signal, %error, "the guest cannot be asked: it is stopped hard");
                self.end(Ok(Outcome::Killed));
            }
        }
    }

    fn press(&mut self) -> Result<(), RequestError> {
        self.running.press_power_button()?;
        self.watch.stopping();
        let again = Timespec {
            tv_sec: i64::try_from(PRESS_AGAIN.as_secs()).unwrap_or(1),
            tv_nsec: 0,
        };
        let setting = Itimerspec {
            it_interval: again,
            it_value: again,
        };
        if let Err(error) = timerfd_settime(&self.press_timer, TimerfdTimerFlags::empty(), &setting)
        {
            tracing::warn!(%error, "the power button is pressed only once");
        }
        Ok(())
    }

    /// The guest reported something, or it is time for something.
    fn watch(&mut self) {
        if self.watch.takes_pulse() {
            match self.running.pulse() {
                // Those of a guest that has ended are halted.
                Err(vcpu) if self.ended.is_none() => {
                    tracing::warn!(vcpu, "The thread of a vCPU does not answer");
                }
                Ok(()) | Err(_) => self.watch.beat(),
            }
        }
        match self.watch.look() {
            Step::GoOn => {}
            Step::GiveUp => self.give_up(),
            Step::End => self.end(Ok(Outcome::NotReady)),
        }
    }

    /// Somebody waits for a guest that will not be ready: it is asked to power off.
    fn give_up(&mut self) {
        let status = self.watch.readiness().status();
        tracing::error!("The guest is given up: {status}");
        if let Err(error) = self.press() {
            tracing::warn!(%error, "the guest cannot be asked: it is stopped hard");
            self.end(Ok(Outcome::NotReady));
        }
    }

    fn press_again(&mut self) {
        let mut expirations = [0; 8];
        let fired = rustix::io::read(&self.press_timer, &mut expirations).is_ok();
        if fired && self.running.state == VmState::Stopping {
            // The state allows it, so there is nothing to refuse.
            let _ = self.running.press_power_button();
        }
    }
}

impl MutEventSubscriber for Control {
    fn init(&mut self, ops: &mut EventOps) {
        let [board, clock] = self.watch.descriptors();
        let sources = [
            (board, READINESS),
            (clock, READINESS),
            (self.queue.wake.as_raw_fd(), WAKE),
            (self.signals.as_raw_fd(), SIGNAL),
            (self.press_timer.as_raw_fd(), TIMER),
        ];
        for (fd, token) in sources {
            if let Err(error) = ops.add(Events::with_data_raw(fd, token, EventSet::IN)) {
                self.end(Err(control_error(error)));
            }
        }
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps) {
        match events.data() {
            WAKE => {
                let _ = self.queue.wake.read();
                while !self.is_done()
                    && let Ok(event) = self.queue.queue.try_recv()
                {
                    self.happened(event);
                }
            }
            SIGNAL => self.signalled(),
            READINESS => self.watch(),
            _ => self.press_again(),
        }
    }
}
