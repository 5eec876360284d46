//! The device's thread: an event on any side, then a burst in each direction.

use std::sync::Arc;

use event_manager::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::Mux;
use super::queues::{
    Ring, Served, inspect_events, inspect_rx, send_transport_reset, serve_rx, serve_tx,
};
use crate::device::ActiveQueue;
use crate::fault::QueueFault;
use crate::interrupt::Interrupt;
use crate::log_limit::LogLimit;
use crate::worker::{Handler, Source};

const RX: u32 = 0;
const TX: u32 = 1;
const EVENTS: u32 = 2;
const HOST: u32 = 3;
const AGAIN: u32 = 4;

static FAULTS: LogLimit = LogLimit::new();

/// The queues of an active device and what serves them.
pub(super) struct Sockets {
    rx: Ring,
    tx: Ring,
    events: Ring,
    link: Link,
    interrupt: Arc<dyn Interrupt>,
    again: EventFd,
    data: Vec<u8>,
    faulted: bool,
}

/// What outlives the queues.
pub(super) struct Link {
    pub(super) mux: Mux,
    /// Whether the driver has yet to hear that its connections are gone.
    pub(super) reset_due: bool,
}

impl Sockets {
    /// Takes the queues in the order receive, transmit, events; `again` is a fresh, non-blocking
    /// eventfd.
    pub(super) fn new(
        [rx, tx, events]: [Ring; 3],
        link: Link,
        interrupt: Arc<dyn Interrupt>,
        again: EventFd,
    ) -> Self {
        Self {
            rx,
            tx,
            events,
            link,
            interrupt,
            again,
            data: Vec::new(),
            faulted: false,
        }
    }

    pub(super) fn into_parts(self) -> (Link, Vec<ActiveQueue>) {
        let queues = [self.rx, self.tx, self.events].map(|ring| ring.active);
        (self.link, queues.into())
    }

    fn serve(&mut self, token: u32) {
        if self.faulted {
            return;
        }
        if let Err(fault) = self.try_serve(token) {
            self.faulted = true;
            self.interrupt.needs_reset();
            if let Some(count) = FAULTS.next() {
                tracing::warn!(count, %fault, "Sockets: the driver broke the protocol");
            }
        }
    }

    fn try_serve(&mut self, token: u32) -> Result<(), QueueFault> {
        match token {
            RX => inspect_rx(&mut self.rx)?,
            EVENTS => inspect_events(&mut self.events)?,
            HOST => {
                self.link.mux.poll();
            }
            _ => {}
        }
        if self.link.reset_due {
            // Nothing passes before the driver knows which connections there are.
            let Some(served) = send_transport_reset(&mut self.events)? else {
                return Ok(());
            };
            self.link.reset_due = false;
            self.report(&self.events, served);
        }
        let served = serve_tx(&mut self.tx, &mut self.link.mux, &mut self.data)?;
        self.report(&self.tx, served);
        let served = serve_rx(&mut self.rx, &mut self.link.mux)?;
        self.report(&self.rx, served);
        Ok(())
    }

    fn report(&self, ring: &Ring, served: Served) {
        if served.interrupt {
            self.interrupt.signal_queue(ring.active.index);
        }
        if served.again {
            // Through the event loop, so that a stop gets its turn as well. The write only fails
            // when the counter is full, and then the loop is awake already.
            let _ = self.again.write(1);
        }
    }
}

impl Handler for Sockets {
    fn sources(&self) -> Vec<Source> {
        vec![
            Source::readable(&self.rx.active.kick, RX),
            Source::readable(&self.tx.active.kick, TX),
            Source::readable(&self.events.active.kick, EVENTS),
            Source {
                fd: self.link.mux.fd(),
                token: HOST,
                events: EventSet::IN,
            },
            Source::readable(&self.again, AGAIN),
        ]
    }

    fn start(&mut self) {
        self.serve(RX);
        self.serve(EVENTS);
    }

    fn handle(&mut self, token: u32) {
        let kick = match token {
            RX => &self.rx.active.kick,
            TX => &self.tx.active.kick,
            EVENTS => &self.events.active.kick,
            AGAIN => &self.again,
            _ => return self.serve(HOST),
        };
        // Fails when the kick was taken back by a reset.
        let _ = kick.read();
        self.serve(token);
    }

    fn drain(&mut self) {
        // Every packet is with the guest or with its connection: nothing is ever in flight.
    }
}
