//! The device's thread: events to queues.

use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use event_manager::EventSet;
use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use super::ConsoleHost;
use super::queues::{Receive, Served, Transmit};
use crate::device::{ActiveQueue, Memory};
use crate::fault::QueueFault;
use crate::interrupt::Interrupt;
use crate::log_limit::LogLimit;
use crate::worker::{Handler, Source};

const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;
const ARRIVED: u32 = 2;
const ROOM: u32 = 3;

static FAULTS: LogLimit = LogLimit::new();

/// Both queues of the port, and what they lead to.
pub(super) struct Ports {
    receive: Receive,
    receive_kick: EventFd,
    transmit: Transmit,
    transmit_kick: EventFd,
    host: ConsoleHost,
    memory: Memory,
    interrupt: Arc<dyn Interrupt>,
    faulted: bool,
}

impl Ports {
    /// Serves `queues`, receive and transmit, for the host's side and what it had no room for.
    pub(super) fn new(
        queues: (ActiveQueue, ActiveQueue),
        (host, pending): (ConsoleHost, Vec<u8>),
        (memory, interrupt): (Memory, Arc<dyn Interrupt>),
    ) -> Self {
        let (receive, transmit) = queues;
        host.input.set_heard(true);
        Self {
            receive: Receive::new(receive.index, receive.queue),
            receive_kick: receive.kick,
            transmit: Transmit::new(transmit.index, transmit.queue, pending),
            transmit_kick: transmit.kick,
            host,
            memory,
            interrupt,
            faulted: false,
        }
    }

    /// The host's side, the output it had no room for, and the queues.
    pub(super) fn into_parts(self) -> (ConsoleHost, Vec<u8>, Vec<ActiveQueue>) {
        let active = |index, queue: Queue, kick| ActiveQueue { index, queue, kick };
        let queues = vec![
            active(self.receive.index, self.receive.queue, self.receive_kick),
            active(self.transmit.index, self.transmit.queue, self.transmit_kick),
        ];
        self.host.input.set_heard(false);
        (self.host, self.transmit.pending, queues)
    }

    fn receive(&mut self) {
        if !self.faulted {
            let served = self.receive.process(&self.memory, &self.host.input);
            self.settle(self.receive.index, served, RECEIVE);
        }
    }

    fn transmit(&mut self) {
        if !self.faulted {
            let output = self.host.output.as_mut();
            let served = self.transmit.process(&self.memory, output);
            self.settle(self.transmit.index, served, TRANSMIT);
        }
    }

    fn settle(&mut self, index: u16, served: Result<Served, QueueFault>, token: u32) {
        match served {
            Ok(served) => {
                if served.interrupt {
                    self.interrupt.signal_queue(index);
                }
                if served.again {
                    // Through the event loop, so that a stop gets its turn as well. The write only
                    // fails when the counter is full, and then the loop is awake already.
                    let _ = self.kick(token).write(1);
                }
            }
            Err(fault) => {
                self.faulted = true;
                self.interrupt.needs_reset();
                if let Some(count) = FAULTS.next() {
                    tracing::warn!(count, %fault, "Console: the driver broke the protocol");
                }
            }
        }
    }

    fn kick(&self, token: u32) -> &EventFd {
        if token == RECEIVE {
            &self.receive_kick
        } else {
            &self.transmit_kick
        }
    }
}

impl Handler for Ports {
    fn sources(&self) -> Vec<Source> {
        vec![
            Source::readable(&self.receive_kick, RECEIVE),
            Source::readable(&self.transmit_kick, TRANSMIT),
            Source::readable(self.host.input.arrived(), ARRIVED),
            Source {
                fd: self.host.output.room().as_raw_fd(),
                token: ROOM,
                events: EventSet::IN,
            },
        ]
    }

    fn start(&mut self) {
        self.transmit();
        self.receive();
    }

    fn handle(&mut self, token: u32) {
        match token {
            RECEIVE | TRANSMIT => {
                // Fails when the kick was taken back by a reset.
                let _ = self.kick(token).read();
            }
            ARRIVED => {
                let _ = self.host.input.arrived().read();
            }
            _ => {
                // Fails when somebody else has read it: then there is room as well.
                let _ = rustix::io::read(self.host.output.room(), &mut [0; 8]);
            }
        }
        match token {
            RECEIVE | ARRIVED => self.receive(),
            _ => self.transmit(),
        }
    }

    fn drain(&mut self) {
        // Each buffer is given back when it is seen: nothing is ever in flight.
    }
}
