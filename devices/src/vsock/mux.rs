//! Every connection of a device, and what becomes of each packet. Knows no ring.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use vm_memory::VolatileSlice;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::connection::{Connection, Packet, Ports};
use super::endpoint::Endpoint;
use super::handshake::{Handshake, Said};
use super::host::VsockHost;
use super::packet::{Header, Op, TYPE_STREAM};
use super::service::Peer;
use super::table::Table;
use super::{Cid, HOST_CID, MAX_HANDSHAKES, MAX_RESETS, MAX_SESSIONS};
use crate::log_limit::LogLimit;

/// What the listener is called among the descriptors waited for; connections count up from here.
const LISTENER: u64 = 0;

/// Ports of the host for connections that its programs ask for: far above those that the guest's
/// programs would look for somebody at.
const HOST_PORTS: std::ops::Range<u32> = 1 << 30..1 << 31;

/// Events looked at before the guest gets its turn.
const EVENTS: usize = 64;

/// The host's side of a socket device.
pub struct Mux {
    cid: Cid,
    host: VsockHost,
    epoll: Epoll,
    table: Table,
    handshakes: BTreeMap<u64, Handshake>,
    /// Connections that may have a packet for the guest, each once.
    ready: VecDeque<u64>,
    /// Packets that belong to no connection.
    resets: VecDeque<Header>,
    last_id: u64,
    last_port: u32,
    oddities: LogLimit,
}

impl Mux {
    /// A side without connections, for the guest at `cid`.
    ///
    /// # Errors
    /// When the host refuses a descriptor.
    pub fn new(cid: Cid, host: VsockHost) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        if let Some(listener) = &host.listener {
            listener.set_nonblocking(true)?;
            watch(&epoll, listener.as_raw_fd(), LISTENER)?;
        }
        Ok(Self {
            cid,
            host,
            epoll,
            table: Table::default(),
            handshakes: BTreeMap::new(),
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            last_id: LISTENER,
            last_port: HOST_PORTS.start,
            oddities: LogLimit::new(),
        })
    }

    /// Becomes readable when there is something for [`poll`](Self::poll).
    pub fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Connections now, those included that only have bytes left for the host.
    pub fn connections(&self) -> usize {
        self.table.len()
    }

    /// Forgets every connection, as the guest did: its driver started anew.
    pub fn disconnect(&mut self) {
        self.table.clear();
        self.ready.clear();
        self.resets.clear();
    }

    /// Whether a packet of the guest can be taken now.
    pub fn can_receive(&self) -> bool {
        self.resets.len() < MAX_RESETS
    }

    /// Whether there may be a packet for the guest.
    pub fn has_packets(&self) -> bool {
        !self.resets.is_empty() || !self.ready.is_empty()
    }

    /// Takes a packet of the guest.
    pub fn receive(&mut self, header: &Header, data: &[u8]) {
        if header.src_cid != u64::from(self.cid.get()) {
            if let Some(count) = self.oddities.next() {
                let cid = header.src_cid;
                tracing::warn!(count, cid, "Sockets: a packet from somebody else's CID");
            }
            return;
        }
        let ports = Ports {
            host: header.dst_port,
            guest: header.src_port,
        };
        let ours = header.dst_cid == HOST_CID && header.kind == TYPE_STREAM;
        let id = self.table.id_of(ports).filter(|_| ours);
        match (Op::of(header.op), id) {
            (Some(Op::Reset), Some(id)) => self.reset_by_guest(id),
            (Some(Op::Reset), None) => {}
            (Some(Op::Request), None) if ours => self.open(ports, header),
            (Some(op), Some(id)) => self.with(id, |connection| {
                connection.deliver(op, header, data);
            }),
            (None, Some(id)) => self.with(id, Connection::break_off),
            (_, None) => self.resets.push_back(header.reset()),
        }
    }

    /// The next packet for the guest, its data in `room`, which is not empty.
    pub fn next(&mut self, room: &VolatileSlice<'_>) -> Option<Header> {
        if let Some(reset) = self.resets.pop_front() {
            return Some(reset);
        }
        while let Some(id) = self.ready.pop_front() {
            let Some(connection) = self.table.get_mut(id) else {
                continue;
            };
            connection.listed = false;
            let Some(packet) = connection.next(room) else {
                continue;
            };
            let header = header(self.cid, connection, packet);
            if packet.op == Op::Reset {
                self.table.remove(id);
            } else {
                // At the end: everybody gets a turn before its next packet.
                self.list(id);
            }
            return Some(header);
        }
        None
    }

    /// Looks what happened on the host. Returns how many descriptors had news; looking at those may
    /// have made more.
    pub fn poll(&mut self) -> usize {
        let mut events = [EpollEvent::default(); EVENTS];
        let count = match self.epoll.wait(0, &mut events) {
            Ok(count) => count,
            // Interrupted: the descriptor is still readable.
            Err(_) => return 0,
        };
        for event in events.iter().take(count) {
            let id = event.data();
            if id == LISTENER {
                self.accept();
            } else if let Some(handshake) = self.handshakes.remove(&id) {
                self.listen(id, handshake);
            } else {
                self.happened(id, event.event_set());
            }
        }
        count
    }

    fn happened(&mut self, id: u64, events: EventSet) {
        let known = self.table.is_known(id);
        self.with(id, |connection| {
            connection.became_readable();
            if events.intersects(EventSet::HANG_UP | EventSet::ERROR) {
                connection.hung_up();
            }
            connection.flush();
        });
        if !known {
            self.drop_if_drained(id);
        }
    }

    /// Accepts whoever waits. When descriptors run out, the rest wait until somebody else comes.
    fn accept(&mut self) {
        while let Some(listener) = &self.host.listener {
            match listener.accept() {
                Ok((stream, _)) => {
                    let id = self.new_id();
                    if stream.set_nonblocking(true).is_err()
                        || watch(&self.epoll, stream.as_raw_fd(), id).is_err()
                    {
                        continue;
                    }
                    self.handshakes.insert(id, Handshake::new(stream));
                    if self.handshakes.len() > MAX_HANDSHAKES {
                        self.handshakes.pop_first();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock
                        && let Some(count) = self.oddities.next()
                    {
                        tracing::warn!(count, %error, "Sockets: a client was not accepted");
                    }
                    return;
                }
            }
        }
    }

    fn listen(&mut self, id: u64, handshake: Handshake) {
        match handshake.listen() {
            Said::Part(handshake) => {
                self.handshakes.insert(id, handshake);
            }
            Said::Port(stream, port) if !self.table.is_full() => {
                let ports = Ports {
                    host: self.free_port(port),
                    guest: port,
                };
                let endpoint = Endpoint::Socket(stream);
                self.table
                    .insert(id, Connection::from_host(ports, endpoint));
                self.list(id);
            }
            Said::Port(..) | Said::Nothing => {}
        }
    }

    /// A port that no connection to the guest's port has; there are more of them than connections.
    fn free_port(&mut self, guest: u32) -> u32 {
        loop {
            self.last_port = self.last_port.saturating_add(1);
            if !HOST_PORTS.contains(&self.last_port) {
                self.last_port = HOST_PORTS.start;
            }
            let host = self.last_port;
            if self.table.id_of(Ports { host, guest }).is_none() {
                return host;
            }
        }
    }

    /// The guest asks for a connection.
    fn open(&mut self, ports: Ports, header: &Header) {
        let id = self.new_id();
        match self.endpoint(ports) {
            Some(endpoint) => {
                let connection = Connection::from_guest(ports, header, endpoint);
                let watched = connection
                    .socket()
                    .map_or(Ok(()), |socket| watch(&self.epoll, socket.as_raw_fd(), id));
                if watched.is_ok() {
                    self.table.insert(id, connection);
                    self.list(id);
                    return;
                }
            }
            None => tracing::debug!(port = ports.host, "Sockets: nobody is at the port"),
        }
        self.resets.push_back(header.reset());
    }

    fn endpoint(&mut self, ports: Ports) -> Option<Endpoint> {
        if self.table.is_full() {
            return None;
        }
        if let Some(service) = self.host.services.get_mut(&ports.host) {
            let peer = Peer {
                cid: self.cid,
                port: ports.guest,
            };
            let session = (self.table.sessions() < MAX_SESSIONS)
                .then(|| service.accept(peer))
                .flatten()?;
            return Some(Endpoint::session(session));
        }
        let stream: UnixStream = self.host.dial.as_mut()?.dial(ports.host).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(Endpoint::Socket(stream))
    }

    /// The guest is done with a connection; what it sent before still reaches the host.
    fn reset_by_guest(&mut self, id: u64) {
        self.with(id, Connection::flush);
        self.table.forget_ports(id);
        self.drop_if_drained(id);
    }

    fn drop_if_drained(&mut self, id: u64) {
        if self.table.get_mut(id).is_some_and(|it| it.is_drained()) {
            self.table.remove(id);
        }
    }

    /// Changes a connection, which may have a packet for the guest then.
    fn with(&mut self, id: u64, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.table.get_mut(id) {
            change(connection);
            self.list(id);
        }
    }

    fn list(&mut self, id: u64) {
        let known = self.table.is_known(id);
        if let Some(connection) = self.table.get_mut(id)
            && known
            && !connection.listed
        {
            connection.listed = true;
            self.ready.push_back(id);
        }
    }

    fn new_id(&mut self) -> u64 {
        self.last_id = self.last_id.saturating_add(1);
        self.last_id
    }
}

fn header(cid: Cid, connection: &mut Connection, packet: Packet) -> Header {
    let mut header = Header {
        src_cid: HOST_CID,
        dst_cid: cid.get().into(),
        src_port: connection.ports.host,
        dst_port: connection.ports.guest,
        len: packet.len,
        kind: TYPE_STREAM,
        op: packet.op as u16,
        flags: packet.flags,
        ..Header::default()
    };
    connection.announce(&mut header);
    header
}

/// Waits for every change of a descriptor, as long as it is open.
fn watch(epoll: &Epoll, fd: RawFd, id: u64) -> io::Result<()> {
    let events = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
    epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events, id))
}
