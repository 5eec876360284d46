//! The work of a card's thread: the first pair of queues, and what the driver asks for through the
//! control queue.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use event_manager::EventSet;
use tracing::{debug, error};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Burst;
use super::control::{Ack, Command, Control};
use super::features;
use super::lanes::{LaneError, Lanes, kernel_failed};
use super::pair::{self, Pair};
use super::session::Session;
use super::state::Settings;
use super::tap::Tap;
use super::vhost::KernelPair;
use crate::device::{ActiveQueue, DeviceError};
use crate::fault::QueueFault;
use crate::worker::{Handler, Source};

/// The driver has commands. The tokens below are the first pair's.
const CONTROL: u32 = pair::TOKENS;
/// A full burst of commands left some behind.
const RESUME: u32 = pair::TOKENS + 1;
/// The kernel, which serves the pairs, met a broken ring.
const ERROR: u32 = pair::TOKENS + 2;

/// A card at work.
pub(super) struct Card {
    session: Arc<Session>,
    first: First,
    lanes: Lanes,
    control: Option<Control>,
    governor: Governor,
    resume: EventFd,
}

/// Who serves the first pair.
pub(super) enum First {
    /// The card's own thread.
    Here(Box<Pair>),
    /// The kernel.
    Kernel(KernelPair),
}

/// What commands are checked against and change.
pub(super) struct Governor {
    pub(super) tap: Arc<Tap>,
    /// Feature bits the driver acknowledged.
    pub(super) features: u64,
    /// Most pairs that the driver can have served.
    pub(super) max_pairs: u16,
    pub(super) settings: Settings,
}

impl Card {
    pub(super) fn new(
        first: First,
        lanes: Lanes,
        control: Option<Control>,
        (session, governor): (Arc<Session>, Governor),
    ) -> std::io::Result<Self> {
        Ok(Self {
            session,
            first,
            lanes,
            control,
            governor,
            resume: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// All queues, and the settings as the driver left them.
    pub(super) fn into_parts(self) -> Result<(Vec<ActiveQueue>, Settings), DeviceError> {
        // Whatever becomes of the first pair, the others' threads end.
        let further = self.lanes.into_queues();
        let first = match self.first {
            First::Here(pair) => pair.into_queues(),
            First::Kernel(pair) => pair.stop().map_err(kernel_failed)?,
        };
        let mut queues = further?;
        queues.extend(first.into_array());
        queues.extend(self.control.map(Control::into_queue));
        Ok((queues, self.governor.settings))
    }

    /// The kernel met a broken ring; it does not say which.
    fn halt_kernel(&mut self) {
        if let First::Kernel(pair) = &self.first {
            // A kernel that refuses has nothing in its hands either.
            let _ = pair.halt();
        }
        self.lanes.halt();
        self.session.fault(&QueueFault::Kernel);
    }

    fn obey_commands(&mut self) {
        if self.session.is_faulted() {
            return;
        }
        if let Err(fault) = self.process_commands() {
            self.session.fault(&fault);
        }
    }

    fn process_commands(&mut self) -> Result<(), QueueFault> {
        let Some(control) = &mut self.control else {
            return Ok(());
        };
        let (governor, lanes, session) = (&mut self.governor, &mut self.lanes, &self.session);
        let burst = control.process(|command| governor.obey(command, lanes, session))?;
        if control.ring().take_signal()? {
            session.interrupt.signal_queue(control.queue().index);
        }
        if burst == Burst::More {
            // Through the event loop, so that frames and a stop get their turn. The write only
            // fails when the counter is full, and then the event is pending already.
            let _ = self.resume.write(1);
        }
        Ok(())
    }
}

impl Governor {
    fn obey(&mut self, command: Command, lanes: &mut Lanes, session: &Session) -> Ack {
        match command {
            Command::SetPairs(pairs) => self.set_pairs(pairs, lanes, session),
            Command::SetOffloads(bits) => self.set_offloads(bits),
        }
    }

    fn set_pairs(&mut self, pairs: u16, lanes: &mut Lanes, session: &Session) -> Ack {
        if !(1..=self.max_pairs).contains(&pairs) {
            return Ack::Refused;
        }
        match lanes.set_active(pairs.into()) {
            Ok(()) => {
                self.settings.active_pairs = pairs;
                Ack::Done
            }
            Err(LaneError::Disabled { .. }) => Ack::Refused,
            Err(failure) => {
                // Some queues may be lost, and frames with them.
                session.interrupt.needs_reset();
                let failure = &failure as &dyn std::error::Error;
                error!(device = %session.id, failure, "Network card needs a reset");
                Ack::Refused
            }
        }
    }

    /// Only what was negotiated can be switched off and on again (§5.1.6.5.6).
    fn set_offloads(&mut self, bits: u64) -> Ack {
        let known = features::offload_bits() & self.features;
        if bits & !known != 0 || self.tap.set_offloads(features::offloads(bits)).is_err() {
            return Ack::Refused;
        }
        self.settings.offloads = bits;
        Ack::Done
    }
}

impl Handler for Card {
    fn sources(&self) -> Vec<Source> {
        let edge = |fd: &EventFd, token| Source {
            fd: fd.as_raw_fd(),
            token,
            events: EventSet::IN | EventSet::EDGE_TRIGGERED,
        };
        let control = self.control.as_ref();
        let mut sources = match &self.first {
            First::Here(pair) => pair.sources(),
            First::Kernel(_) => Vec::new(),
        };
        let lines = self.session.lines.as_ref();
        sources.extend(lines.map(|lines| edge(&lines.error, ERROR)));
        sources.extend(control.map(|control| edge(&control.queue().kick, CONTROL)));
        sources.push(edge(&self.resume, RESUME));
        sources
    }

    fn start(&mut self) {
        if let First::Here(pair) = &mut self.first {
            pair.start();
        }
        self.obey_commands();
    }

    fn handle(&mut self, token: u32) {
        match token {
            CONTROL | RESUME => self.obey_commands(),
            ERROR => self.halt_kernel(),
            token => {
                if let First::Here(pair) = &mut self.first {
                    pair.handle(token);
                }
            }
        }
    }

    fn drain(&mut self) {
        if let First::Here(pair) = &mut self.first {
            pair.drain();
        }
        let Session { id, counters, .. } = &*self.session;
        debug!(device = %id, counts = ?counters.read(), "Network card stops");
    }
}
