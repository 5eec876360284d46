//! Moves bytes between standard input and output and a console socket until one side ends.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::io::Errno;
use rustix::stdio::{stdin, stdout};

use super::escape::Escape;
use super::terminal::RawTerminal;

/// Bytes moved at once.
const CHUNK: usize = 4096;

/// Most bytes that wait for a guest that does not read its console; more typing waits in the
/// terminal.
const MAX_PENDING: usize = 64 << 10;

/// Why a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The user typed the escape.
    Detached,
    /// The guest's side closed: the guest is gone.
    Closed,
    /// A signal asked for the end.
    Signal(i32),
}

/// The signals that a relay handles. The process must block them before it starts other threads,
/// or the kernel gives them to a thread that does not know about terminals.
///
/// `ending` are those that end the relay; those that stop and continue the process are always
/// included, because a stopped process must leave a usable terminal.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn block_signals(ending: &[Signal]) -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTSTP);
    signals.extend(ending.iter().copied());
    signals.thread_block()?;
    Ok(SignalFd::with_flags(
        &signals,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

/// Relays until the user detaches, the guest's side closes, or one of `signals` ends it. The
/// terminal, when there is one, is raw meanwhile and as before afterwards.
///
/// # Errors
/// When standard output, the socket or the terminal fails.
pub(crate) fn relay(socket: UnixStream, signals: &SignalFd) -> io::Result<End> {
    socket.set_nonblocking(true)?;
    let terminal = RawTerminal::enter()?;
    let mut relay = Relay {
        // Only a person can mean the escape; piped bytes are data.
        escape: terminal.is_some().then(Escape::default),
        terminal,
        socket,
        pending: Vec::new(),
        input: Input::Open,
    };
    loop {
        if let Some(end) = relay.step(signals)? {
            return Ok(end);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    /// No more is read; what waits is still sent.
    Ended,
}

struct Relay {
    terminal: Option<RawTerminal>,
    escape: Option<Escape>,
    socket: UnixStream,
    /// Typed, and not yet taken by the socket.
    pending: Vec<u8>,
    input: Input,
}

impl Relay {
    /// Waits for something to happen, and handles it.
    fn step(&mut self, signals: &SignalFd) -> io::Result<Option<End>> {
        let ready = self.wait(signals.as_fd())?;
        if ready.signal
            && let Some(end) = self.on_signal(signals)?
        {
            return Ok(Some(end));
        }
        if ready.socket && self.copy_output()? == Flow::Closed {
            return Ok(Some(End::Closed));
        }
        if ready.input && self.read_input()? == Flow::Closed {
            return Ok(Some(End::Detached));
        }
        self.send_pending()
    }

    fn wait(&self, signals: BorrowedFd<'_>) -> io::Result<Ready> {
        let mut socket_events = PollFlags::POLLIN;
        if !self.pending.is_empty() {
            socket_events |= PollFlags::POLLOUT;
        }
        let reads_input = self.input == Input::Open && self.pending.len() < MAX_PENDING;
        let input_events = if reads_input {
            PollFlags::POLLIN
        } else {
            PollFlags::empty()
        };
        let mut fds = vec![
            PollFd::new(signals, PollFlags::POLLIN),
            PollFd::new(self.socket.as_fd(), socket_events),
        ];
        if reads_input {
            fds.push(PollFd::new(stdin(), input_events));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => return Ok(Ready::default()),
            Err(errno) => return Err(errno.into()),
        }
        let mut happened = fds.iter().map(|fd| fd.any().unwrap_or(true));
        let mut next = || happened.next().unwrap_or(false);
        Ok(Ready {
            signal: next(),
            socket: next(),
            input: next(),
        })
    }

    /// Stops the process with a usable terminal, or ends the relay.
    fn on_signal(&mut self, signals: &SignalFd) -> io::Result<Option<End>> {
        let Some(info) = signals.read_signal()? else {
            return Ok(None);
        };
        let number = i32::try_from(info.ssi_signo).unwrap_or_default();
        if number != Signal::SIGTSTP as i32 {
            return Ok(Some(End::Signal(number)));
        }
        if let Some(terminal) = &self.terminal {
            terminal.lower();
        }
        // SIGTSTP is blocked here, SIGSTOP cannot be; this returns after SIGCONT.
        raise(Signal::SIGSTOP)?;
        if let Some(terminal) = &self.terminal {
            terminal.raise()?;
        }
        Ok(None)
    }

    fn copy_output(&mut self) -> io::Result<Flow> {
        let mut buffer = [0; CHUNK];
        match self.socket.read(&mut buffer) {
            Ok(0) => Ok(Flow::Closed),
            Ok(count) => {
                write_all(buffer.get(..count).unwrap_or_default())?;
                Ok(Flow::Open)
            }
            Err(error) if retry(&error) => Ok(Flow::Open),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Flow::Closed),
            Err(error) => Err(error),
        }
    }

    /// Reads what was typed; closed means that the user detached.
    fn read_input(&mut self) -> io::Result<Flow> {
        let mut buffer = [0; CHUNK];
        let count = match rustix::io::read(stdin(), &mut buffer) {
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(Flow::Open),
            // A terminal that hung up.
            Err(Errno::IO) => 0,
            Err(errno) => return Err(errno.into()),
        };
        if count == 0 {
            self.input = Input::Ended;
            return Ok(Flow::Open);
        }
        let typed = buffer.get(..count).unwrap_or_default();
        match &mut self.escape {
            None => self.pending.extend_from_slice(typed),
            Some(escape) => {
                let typed = escape.feed(typed);
                self.pending.extend(typed.send);
                if typed.detach {
                    return Ok(Flow::Closed);
                }
            }
        }
        Ok(Flow::Open)
    }

    fn send_pending(&mut self) -> io::Result<Option<End>> {
        if self.pending.is_empty() {
            return Ok(None);
        }
        match self.socket.write(&self.pending) {
            Ok(count) => drop(self.pending.drain(..count)),
            Err(error) if retry(&error) => {}
            // What the guest printed before it went is still to be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.pending.clear(),
            Err(error) => return Err(error),
        }
        Ok(None)
    }
}

#[derive(Debug, Default)]
struct Ready {
    signal: bool,
    socket: bool,
    input: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Flow {
    Open,
    Closed,
}

fn retry(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Writes without the buffer of the standard library, which would hold a prompt back. Waits when
/// the other end is slow: standard output may be non-blocking through no doing of ours.
fn write_all(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(stdout(), bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::new(stdout(), PollFlags::POLLOUT)];
                poll(&mut fds, PollTimeout::NONE)?;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
