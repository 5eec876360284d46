//! One stream between the guest and its endpoint on the host.

use std::collections::VecDeque;

use vm_memory::VolatileSlice;

use super::endpoint::{Endpoint, Given, Taken};
use super::packet::{Header, Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use super::window::{ReceiveWindow, SendWindow};
use super::{MAX_DATA_BYTES, WINDOW_BYTES};

/// What a connection keeps allocated while nothing waits in it.
const IDLE_BACKLOG_BYTES: usize = 4096;

/// The ports of a connection: no two have the same pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

/// How far the opening has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The guest has not answered our request.
    Asked,
    /// Both sides agreed.
    Open,
}

/// A packet for the guest, less what every packet of the connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) op: Op,
    pub(super) len: u32,
    pub(super) flags: u32,
}

impl From<Op> for Packet {
    fn from(op: Op) -> Self {
        Self {
            op,
            len: 0,
            flags: 0,
        }
    }
}

/// A connection. Shut directions are flags as in a SHUTDOWN packet.
pub(super) struct Connection {
    pub(super) ports: Ports,
    /// Whether it is in the list of those that may have a packet for the guest.
    pub(super) listed: bool,
    endpoint: Endpoint,
    stage: Stage,
    send: SendWindow,
    receive: ReceiveWindow,
    /// What the endpoint has not taken yet.
    backlog: VecDeque<u8>,
    /// A request or response that is due.
    opening: Option<Op>,
    /// What the guest shut.
    guest_shut: u32,
    /// What the host shut, as far as the guest was told.
    told_shut: u32,
    /// What the host shut.
    host_shut: u32,
    /// Whether the endpoint may have bytes for the guest.
    readable: bool,
    /// Whether the endpoint was told that the guest's bytes have ended.
    ended: bool,
    /// Whether the endpoint hung up both directions.
    hung_up: bool,
    credit_due: bool,
    /// Whether the guest was asked for credit and gave none since.
    asked_for_credit: bool,
    /// Whether the connection ends with a reset, now.
    broken: bool,
}

impl Connection {
    /// One that the guest asked for with `header`.
    pub(super) fn from_guest(ports: Ports, header: &Header, endpoint: Endpoint) -> Self {
        let mut connection = Self::new(ports, endpoint, Stage::Open, Op::Response);
        connection.send.learn(header);
        connection
    }

    /// One that a program of the host asked for.
    pub(super) fn from_host(ports: Ports, endpoint: Endpoint) -> Self {
        Self::new(ports, endpoint, Stage::Asked, Op::Request)
    }

    fn new(ports: Ports, endpoint: Endpoint, stage: Stage, opening: Op) -> Self {
        Self {
            ports,
            listed: false,
            endpoint,
            stage,
            send: SendWindow::default(),
            receive: ReceiveWindow::new(WINDOW_BYTES),
            backlog: VecDeque::new(),
            opening: Some(opening),
            guest_shut: 0,
            told_shut: 0,
            host_shut: 0,
            readable: true,
            ended: false,
            hung_up: false,
            credit_due: false,
            asked_for_credit: false,
            broken: false,
        }
    }

    pub(super) fn is_session(&self) -> bool {
        matches!(self.endpoint, Endpoint::Session(_))
    }

    /// Whether bytes of the guest still wait for the endpoint.
    pub(super) fn is_drained(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Takes a packet of the guest, any but a reset.
    pub(super) fn deliver(&mut self, op: Op, header: &Header, data: &[u8]) {
        if self.broken {
            return;
        }
        match (self.stage, op) {
            (Stage::Asked, Op::Response) => {
                self.stage = Stage::Open;
                self.send.learn(header);
                self.greet();
            }
            (Stage::Open, Op::Data) => {
                self.send.learn(header);
                self.data(data);
            }
            (Stage::Open, Op::Shutdown) => {
                self.send.learn(header);
                self.shutdown(header.flags & SHUTDOWN_BOTH);
            }
            (Stage::Open, Op::CreditUpdate) => self.send.learn(header),
            (Stage::Open, Op::CreditRequest) => {
                self.send.learn(header);
                self.credit_due = true;
            }
            _ => self.broken = true,
        }
        self.asked_for_credit &= self.send.room() == 0;
    }

    /// Ends the connection with a reset.
    pub(super) fn break_off(&mut self) {
        self.broken = true;
    }

    /// Tells the program of the host that it got through.
    fn greet(&mut self) {
        let line = format!("OK {}\n", self.ports.host);
        // Nothing was written to the socket before, so that it has room for a line.
        if self.endpoint.give(line.as_bytes()) != Given::Bytes(line.len()) {
            self.broken = true;
        }
    }

    fn data(&mut self, data: &[u8]) {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        if self.guest_shut & SHUTDOWN_SEND != 0 || !self.receive.receive(len) {
            self.broken = true;
        } else if self.host_shut & SHUTDOWN_RECEIVE != 0 {
            // It was on its way when the endpoint went.
            self.receive.forward(len);
        } else {
            self.backlog.extend(data);
            self.flush();
        }
    }

    fn shutdown(&mut self, flags: u32) {
        self.guest_shut |= flags;
        if flags & SHUTDOWN_RECEIVE != 0 {
            self.endpoint.guest_is_deaf();
        }
        self.flush();
    }

    /// Gives the endpoint what it takes, and the end when that is due.
    pub(super) fn flush(&mut self) {
        while !self.backlog.is_empty() {
            let given = self.endpoint.give(self.backlog.as_slices().0);
            // A session may have an answer now.
            self.readable |= self.is_session();
            match given {
                Given::Bytes(bytes) => self.forward(bytes),
                Given::Full => return,
                Given::Broken => {
                    self.host_shut |= SHUTDOWN_RECEIVE;
                    self.forward(self.backlog.len());
                }
            }
        }
        self.backlog.shrink_to(IDLE_BACKLOG_BYTES);
        if self.guest_shut & SHUTDOWN_SEND != 0 && !self.ended {
            self.ended = true;
            self.endpoint.end_of_guest();
            self.readable = true;
        }
    }

    fn forward(&mut self, bytes: usize) {
        self.backlog.drain(..bytes.min(self.backlog.len()));
        self.receive
            .forward(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// The endpoint may have something to read.
    pub(super) fn became_readable(&mut self) {
        self.readable = true;
    }

    /// The endpoint is gone in both directions; what it sent before can still be read.
    pub(super) fn hung_up(&mut self) {
        self.hung_up = true;
        self.readable = true;
        if self.stage == Stage::Asked {
            self.broken = true;
        }
        if self.host_shut & SHUTDOWN_SEND != 0 {
            self.host_shut = SHUTDOWN_BOTH;
        }
    }

    /// The next packet for the guest, its data in `room`, which is not empty. After a reset, the
    /// connection is to be dropped.
    pub(super) fn next(&mut self, room: &VolatileSlice<'_>) -> Option<Packet> {
        if self.broken || self.guest_shut == SHUTDOWN_BOTH && self.is_drained() {
            return Some(Op::Reset.into());
        }
        if let Some(op) = self.opening.take() {
            return Some(op.into());
        }
        if self.stage == Stage::Asked {
            return None;
        }
        self.next_data(room).or_else(|| self.next_notice())
    }

    fn next_data(&mut self, room: &VolatileSlice<'_>) -> Option<Packet> {
        let ended = self.host_shut & SHUTDOWN_SEND | self.guest_shut & SHUTDOWN_RECEIVE;
        if !self.readable || ended != 0 {
            return None;
        }
        let credit = self.send.room().min(MAX_DATA_BYTES);
        if credit == 0 {
            let asked = std::mem::replace(&mut self.asked_for_credit, true);
            return (!asked).then_some(Op::CreditRequest.into());
        }
        let credit = usize::try_from(credit).unwrap_or(usize::MAX);
        let room = room.subslice(0, room.len().min(credit)).ok()?;
        match self.endpoint.take(&room) {
            Taken::Bytes(len) => {
                self.send.sent(len);
                Some(Packet {
                    op: Op::Data,
                    len,
                    flags: 0,
                })
            }
            Taken::Nothing => {
                self.readable = false;
                None
            }
            Taken::End => {
                self.readable = false;
                self.host_shut |= if self.hung_up || self.endpoint.ends_altogether() {
                    SHUTDOWN_BOTH
                } else {
                    SHUTDOWN_SEND
                };
                None
            }
        }
    }

    fn next_notice(&mut self) -> Option<Packet> {
        if self.host_shut != self.told_shut {
            self.told_shut = self.host_shut;
            return Some(Packet {
                flags: self.told_shut,
                ..Op::Shutdown.into()
            });
        }
        let due = std::mem::take(&mut self.credit_due) || self.receive.is_news_due();
        due.then_some(Op::CreditUpdate.into())
    }

    /// Writes the receive window into a header for the guest.
    pub(super) fn announce(&mut self, header: &mut Header) {
        self.receive.announce(header);
    }

    /// The socket, to be watched.
    pub(super) fn socket(&self) -> Option<&std::os::unix::net::UnixStream> {
        match &self.endpoint {
            Endpoint::Socket(stream) => Some(stream),
            Endpoint::Session(_) => None,
        }
    }
}
