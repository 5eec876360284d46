//! The console thread: one event loop between the guest's port, the process's output and clients.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::eventfd::EventFd;

use super::ConsoleEnds;
use super::outbox::Outbox;
use super::port::Port;

/// Output a new client sees first.
const RING: usize = 64 << 10;
/// Output kept for a client that does not read; its oldest bytes go first.
const BACKLOG: usize = 1 << 20;
/// Clients at once.
const MAX_CLIENTS: usize = 8;
/// Bytes read from a client at a time; more waits in the socket until the guest has read these.
const INPUT: usize = 256;

const OUTBOX: u32 = 0;
const LISTENER: u32 = 1;
const SPACE: u32 = 2;
const FIRST_CLIENT: u32 = 3;

pub(super) struct Hub {
    outbox: Arc<Outbox>,
    port: Arc<dyn Port>,
    spaces: Vec<EventFd>,
    output: Option<Box<dyn Write + Send>>,
    listener: Option<UnixListener>,
    clients: HashMap<u32, Client>,
    /// Clients that are gone but still registered: an open descriptor keeps its number from being
    /// given to the next one, which could not be registered then.
    left: Vec<Client>,
    next_client: u32,
    ring: VecDeque<u8>,
    /// Input read from clients that the port has no room for yet.
    input: Vec<u8>,
    finished: bool,
}

struct Client {
    stream: UnixStream,
    backlog: VecDeque<u8>,
}

impl Hub {
    pub(super) fn new(
        outbox: Arc<Outbox>,
        port: Arc<dyn Port>,
        ends: ConsoleEnds,
    ) -> io::Result<Self> {
        let spaces = port.spaces()?;
        if let Some(listener) = &ends.listener {
            listener.set_nonblocking(true)?;
        }
        let mut hub = Self {
            outbox,
            port,
            spaces,
            output: ends.output,
            listener: ends.listener,
            clients: HashMap::new(),
            left: Vec::new(),
            next_client: FIRST_CLIENT,
            ring: VecDeque::new(),
            input: Vec::new(),
            finished: false,
        };
        if let Some(stream) = ends.client {
            hub.adopt(stream)?;
        }
        Ok(hub)
    }

    pub(super) fn run(self) -> io::Result<()> {
        let outbox = self.outbox.clone();
        let result = self.serve();
        outbox.leave();
        result
    }

    fn serve(self) -> io::Result<()> {
        let mut manager = EventManager::<Self>::new().map_err(io::Error::other)?;
        let id = manager.add_subscriber(self);
        while !manager
            .subscriber_mut(id)
            .map_err(io::Error::other)?
            .finished
        {
            manager.run().map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Takes a client in; it gets the ring first.
    fn adopt(&mut self, stream: UnixStream) -> io::Result<u32> {
        stream.set_nonblocking(true)?;
        let token = self.next_client;
        self.next_client = token.checked_add(1).unwrap_or(FIRST_CLIENT);
        let backlog = self.ring.clone();
        self.clients.insert(token, Client { stream, backlog });
        Ok(token)
    }

    fn accept(&mut self, ops: &mut EventOps) {
        let Some(listener) = &self.listener else {
            return;
        };
        let Ok((stream, _)) = listener.accept() else {
            return;
        };
        if self.clients.len() >= MAX_CLIENTS {
            tracing::warn!("console has {MAX_CLIENTS} clients already, one more was turned away");
            return;
        }
        let adopted = self.adopt(stream);
        let watched = adopted.and_then(|token| match self.watch(token, ops) {
            Ok(()) => Ok(token),
            Err(error) => {
                self.clients.remove(&token);
                Err(error)
            }
        });
        match watched {
            Ok(token) => self.flush(token),
            Err(error) => tracing::warn!(%error, "console could not take a client in"),
        }
    }

    /// No longer serves a client.
    fn part_from(&mut self, token: u32) {
        self.left.extend(self.clients.remove(&token));
    }

    /// Closes the clients that are gone.
    fn close_left(&mut self, ops: &mut EventOps) {
        for client in self.left.drain(..) {
            if let Err(error) = ops.remove(Events::empty(&client.stream)) {
                tracing::debug!(%error, "console client was not registered");
            }
        }
    }

    fn watch(&self, token: u32, ops: &mut EventOps) -> io::Result<()> {
        let Some(client) = self.clients.get(&token) else {
            return Ok(());
        };
        // Edge-triggered: a client may stay readable while the guest's port is full.
        let set = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        ops.add(Events::with_data(&client.stream, token, set))
            .map_err(io::Error::other)
    }

    /// Passes guest output on.
    fn distribute(&mut self) {
        let batch = self.outbox.take();
        if let Some(output) = &mut self.output
            && let Err(error) = output.write_all(&batch.bytes).and_then(|()| output.flush())
        {
            tracing::warn!(%error, "console output is gone; the machine runs on");
            self.output = None;
        }
        push_bounded(&mut self.ring, &batch.bytes, RING);
        for client in self.clients.values_mut() {
            push_bounded(&mut client.backlog, &batch.bytes, BACKLOG);
        }
        let tokens: Vec<u32> = self.clients.keys().copied().collect();
        for token in tokens {
            self.flush(token);
        }
        self.finished = batch.last;
    }

    /// Writes as much of a client's backlog as it takes now.
    fn flush(&mut self, token: u32) {
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        while !client.backlog.is_empty() {
            let (head, _) = client.backlog.as_slices();
            match client.stream.write(head) {
                Ok(0) => break,
                Ok(written) => drop(client.backlog.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.part_from(token);
                    break;
                }
            }
        }
    }

    /// Moves input from a client to the port, as far as there is room.
    fn receive(&mut self, token: u32) {
        let mut buffer = [0; INPUT];
        while self.deliver() {
            let Some(client) = self.clients.get_mut(&token) else {
                return;
            };
            match client.stream.read(&mut buffer) {
                Ok(0) => {
                    self.part_from(token);
                    return;
                }
                Ok(read) => self.input.extend(buffer.iter().take(read)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.part_from(token);
                    return;
                }
            }
        }
    }

    /// Gives the port what waits for it; false when something is left over.
    fn deliver(&mut self) -> bool {
        if self.input.is_empty() {
            return true;
        }
        let taken = self.port.enqueue(&self.input);
        self.input.drain(..taken.min(self.input.len()));
        self.input.is_empty()
    }

    fn room(&mut self) {
        for space in &self.spaces {
            // Nothing to read from the one that has not fired, which does no harm.
            let _ = space.read();
        }
        let tokens: Vec<u32> = self.clients.keys().copied().collect();
        for token in tokens {
            self.receive(token);
        }
    }
}

/// Appends to a queue of at most `capacity` bytes; the oldest make room.
fn push_bounded(queue: &mut VecDeque<u8>, bytes: &[u8], capacity: usize) {
    let bytes = bytes
        .get(bytes.len().saturating_sub(capacity)..)
        .unwrap_or(bytes);
    let excess = (queue.len() + bytes.len()).saturating_sub(capacity);
    queue.drain(..excess.min(queue.len()));
    queue.extend(bytes);
}

impl MutEventSubscriber for Hub {
    fn init(&mut self, ops: &mut EventOps) {
        let mut fixed: Vec<Events> = (self.spaces.iter())
            .map(|space| Events::with_data(space, SPACE, EventSet::IN))
            .collect();
        for wake in self.outbox.wakes() {
            fixed.push(Events::with_data_raw(wake, OUTBOX, EventSet::IN));
        }
        if let Some(listener) = &self.listener {
            fixed.push(Events::with_data_raw(
                listener.as_raw_fd(),
                LISTENER,
                EventSet::IN,
            ));
        }
        let tokens: Vec<u32> = self.clients.keys().copied().collect();
        let added = fixed
            .into_iter()
            .try_for_each(|events| ops.add(events).map_err(io::Error::other))
            .and_then(|()| tokens.iter().try_for_each(|token| self.watch(*token, ops)));
        if let Err(error) = added {
            tracing::error!(%error, "console cannot wait for events");
            self.finished = true;
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        match events.data() {
            OUTBOX => self.distribute(),
            LISTENER => self.accept(ops),
            SPACE => self.room(),
            token => {
                if events.event_set().contains(EventSet::OUT) {
                    self.flush(token);
                }
                self.receive(token);
            }
        }
        self.close_left(ops);
    }
}

#[cfg(test)]
mod tests;
