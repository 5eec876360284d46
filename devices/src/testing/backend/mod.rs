//! Vhost-user backends of a file system without files, each in a thread: they answer every request
//! with an empty reply, and break down on demand.

mod server;

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use vhost::vhost_user::BackendReqHandler;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use self::server::Server;
use super::wake::{Wake, wait_for};
use crate::vhost_user::Connect;

/// What a backend does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Behaviour {
    /// Answers them.
    #[default]
    Answer,
    /// Takes them, and says nothing.
    Swallow,
}

/// What a backend does when it is asked for its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Remembering {
    /// Hands over what it was given, or a state of its own.
    #[default]
    Faithful,
    /// Knows no states.
    Never,
    /// Takes the pipe and leaves it open.
    Stuck,
    /// Says in the end that it failed.
    Failing,
}

/// Starts backends, and remembers what they went through. Clones share everything.
#[derive(Debug, Clone)]
pub struct Backends(Arc<Mutex<Notes>>, Arc<EventFd>);

#[derive(Debug, Default)]
struct Notes {
    behaviour: Behaviour,
    remembering: Remembering,
    /// The state that the last of them was given.
    state: Option<Vec<u8>>,
    /// Size of the window that they can have files mapped in, in bytes.
    window: Option<u64>,
    /// The queue at whose turn the next backend breaks down.
    fails_to_enable: Option<u32>,
    /// Backends that may still be started.
    left: Option<usize>,
    started: usize,
    /// Requests taken from the rings, by all of them.
    taken: usize,
    last: Option<Running>,
}

/// A backend's thread, and what ends it.
#[derive(Debug)]
struct Running {
    stop: EventFd,
    thread: JoinHandle<()>,
}

impl Backends {
    /// As many backends as are asked for, all of which answer.
    pub fn new() -> Self {
        Self(
            Arc::default(),
            Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()),
        )
    }

    /// Changes what backends do with requests from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.notes().behaviour = behaviour;
    }

    /// Changes what backends do with states from now on.
    pub fn remember(&self, remembering: Remembering) {
        self.notes().remembering = remembering;
    }

    /// The state that a backend was given last.
    pub fn state(&self) -> Option<Vec<u8>> {
        self.notes().state.clone()
    }

    /// Gives the next backends a state to hand over.
    pub fn set_state(&self, state: &[u8]) {
        self.notes().state = Some(state.to_vec());
    }

    /// The next backends can have files mapped in a window of so many bytes, and do not.
    pub fn set_window(&self, bytes: u64) {
        self.notes().window = Some(bytes);
    }

    /// A backend that is to serve this queue next serves those before it, and breaks down.
    pub fn fail_to_enable(&self, queue: u32) {
        self.notes().fails_to_enable = Some(queue);
    }

    /// Only so many more backends start; then connecting fails.
    pub fn limit(&self, left: usize) {
        self.notes().left = Some(left);
    }

    /// How many were started.
    pub fn started(&self) -> usize {
        self.notes().started
    }

    /// How many requests they took.
    pub fn taken(&self) -> usize {
        self.notes().taken
    }

    /// Kills the last one: when this returns, it does nothing more and its socket is closed.
    pub fn kill(&self) {
        let last = self.notes().last.take().expect("a backend");
        last.stop.write(1).unwrap();
        last.thread.join().unwrap();
    }

    /// Waits until `count` requests were taken. Returns false when they were not within ten
    /// seconds.
    pub fn wait_taken(&self, count: usize) -> bool {
        wait_for(self, || (self.taken() >= count).then_some(())).is_some()
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap()
    }

    /// Called by a backend for each request it takes. Returns what to do with it.
    fn take(&self) -> Behaviour {
        let mut notes = self.notes();
        notes.taken += 1;
        self.1.write(1).unwrap();
        notes.behaviour
    }
}

impl Default for Backends {
    fn default() -> Self {
        Self::new()
    }
}

impl Wake for Backends {
    fn event(&self) -> &EventFd {
        &self.1
    }
}

impl Connect for Backends {
    fn connect(&mut self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut notes = self.notes();
        if let Some(left) = &mut notes.left {
            *left = left
                .checked_sub(1)
                .ok_or_else(|| io::Error::other("no backend is left"))?;
        }
        notes.started += 1;
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let (backends, stopped) = (self.clone(), stop.try_clone()?);
        let thread = thread::Builder::new()
            .name("backend".to_owned())
            .spawn(move || run(theirs, &stopped, backends))?;
        notes.last = Some(Running { stop, thread });
        Ok(ours)
    }
}

const SOCKET: u64 = u64::MAX;
const STOP: u64 = SOCKET - 1;

/// Serves until the frontend is gone or `stop` fires.
fn run(socket: UnixStream, stop: &EventFd, backends: Backends) {
    let epoll = Arc::new(Epoll::new().unwrap());
    for (fd, token) in [(socket.as_raw_fd(), SOCKET), (stop.as_raw_fd(), STOP)] {
        let event = EpollEvent::new(EventSet::IN, token);
        epoll.ctl(ControlOperation::Add, fd, event).unwrap();
    }
    let server = Arc::new(Mutex::new(Server::new(epoll.clone(), backends)));
    let mut handler = BackendReqHandler::from_stream(socket, server.clone());
    loop {
        let mut events = [EpollEvent::default(); 1];
        // An interrupted wait reports nothing.
        let count = epoll.wait(-1, &mut events).unwrap_or(0);
        for event in events.iter().take(count) {
            match event.data() {
                STOP => return,
                SOCKET if handler.handle_request().is_err() => return,
                SOCKET => {}
                ring => server.lock().unwrap().kicked(ring),
            }
        }
    }
}
