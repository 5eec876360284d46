//! One connection of the host.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{VsockAddr, getpeername};

use super::frozen::Frozen;
use super::{FreezeError, host, mounted};

/// The host's address (virtio 1.2 §5.10.4).
const HOST_CID: u32 = 2;

/// Longest that anything may be frozen for, in seconds.
const MAX_SECONDS: u64 = 300;

/// How long the host may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest line.
const MAX_LINE: usize = 64;

/// What the guard gives this process beyond the time limit, in seconds.
const GRACE: u64 = 5;

/// Signals that end this process once everything is thawed.
pub(super) struct Interrupts(SignalFd);

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// The other end said something, or hung up.
    Input,
    /// A signal came.
    Signal,
    /// The time is over.
    Timeout,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// As the host wanted.
    Thawed,
    /// By a signal; everything is thawed.
    Signal,
}

impl Interrupts {
    /// Takes SIGINT, SIGTERM and SIGHUP from here on.
    pub(super) fn block() -> Result<Self, FreezeError> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block().map_err(host("block signals"))?;
        SignalFd::new(&signals)
            .map(Self)
            .map_err(host("wait for signals"))
    }

    /// Waits for input, a signal or a moment.
    pub(super) fn wait(
        &self,
        input: &impl AsFd,
        until: Option<Instant>,
    ) -> Result<Woken, FreezeError> {
        loop {
            let limit = until.map_or(PollTimeout::NONE, |until| {
                let left = until.saturating_duration_since(Instant::now());
                // A whole millisecond more: it must not be over before its time.
                let left = left.as_millis().saturating_add(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            });
            let mut waiting = [
                PollFd::new(self.0.as_fd(), PollFlags::POLLIN),
                PollFd::new(input.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waiting, limit) {
                Ok(0) => return Ok(Woken::Timeout),
                Ok(_) => {
                    let [signal, _] = waiting.map(|one| one.any().unwrap_or_default());
                    return Ok(if signal { Woken::Signal } else { Woken::Input });
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(host("wait for the host")(errno)),
            }
        }
    }
}

/// Serves one connection from its first line to its end.
///
/// # Errors
/// When it did not go as the host wanted; nothing stays frozen.
pub(super) fn session(connection: OwnedFd, interrupts: &Interrupts) -> Result<Ended, FreezeError> {
    let peer = getpeername::<VsockAddr>(connection.as_raw_fd());
    if !peer.is_ok_and(|peer| peer.cid() == HOST_CID) {
        return Err(FreezeError::NotTheHost);
    }
    let mut connection = File::from(connection);
    let ended = converse(&mut connection, interrupts);
    if let Err(error) = &ended {
        let reason = std::error::Error::source(error).map(|source| format!(": {source}"));
        // A host that is gone needs no answer.
        let _ = writeln!(connection, "ERR {error}{}", reason.unwrap_or_default());
    }
    ended
}

fn converse(connection: &mut File, interrupts: &Interrupts) -> Result<Ended, FreezeError> {
    let until = Instant::now().checked_add(PATIENCE);
    let Heard::Line(line) = hear(connection, interrupts, until)? else {
        return Err(FreezeError::HungUp);
    };
    let seconds = seconds(&line)?;
    let frozen = Frozen::freeze(&mounted()?, seconds.saturating_add(GRACE))?;
    let until = Instant::now().checked_add(Duration::from_secs(seconds));
    let answer = format!("OK {} {}\n", frozen.count(), frozen.skipped);
    if connection.write_all(answer.as_bytes()).is_err() {
        return Err(FreezeError::HungUp);
    }
    match hear(connection, interrupts, until)? {
        Heard::Line(line) if line == "THAW" => {
            if !frozen.thaw() {
                return Err(FreezeError::Expired { seconds });
            }
            // A host that is gone has what it wanted.
            let _ = connection.write_all(b"OK\n");
            Ok(Ended::Thawed)
        }
        Heard::Line(line) => Err(FreezeError::Malformed { line }),
        Heard::HungUp => Err(FreezeError::HungUp),
        Heard::Timeout => Err(FreezeError::Expired { seconds }),
        Heard::Signal => Ok(Ended::Signal),
    }
}

fn seconds(line: &str) -> Result<u64, FreezeError> {
    let seconds = line
        .strip_prefix("FREEZE ")
        .and_then(|text| text.parse().ok());
    let seconds = seconds.filter(|seconds| (1..=MAX_SECONDS).contains(seconds));
    seconds.ok_or_else(|| FreezeError::Malformed {
        line: line.to_owned(),
    })
}

/// What was heard of the host.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Line(String),
    HungUp,
    Timeout,
    Signal,
}

fn hear(
    connection: &mut File,
    interrupts: &Interrupts,
    until: Option<Instant>,
) -> Result<Heard, FreezeError> {
    let mut line = Vec::new();
    while line.len() <= MAX_LINE {
        match interrupts.wait(connection, until)? {
            Woken::Input => {}
            Woken::Signal => return Ok(Heard::Signal),
            Woken::Timeout => return Ok(Heard::Timeout),
        }
        let mut byte = [0];
        match connection.read(&mut byte) {
            Ok(0) => return Ok(Heard::HungUp),
            Ok(_) if byte == *b"\n" => {
                return Ok(Heard::Line(String::from_utf8_lossy(&line).into_owned()));
            }
            Ok(_) => line.extend(byte),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(Heard::HungUp),
        }
    }
    Ok(Heard::Line(String::from_utf8_lossy(&line).into_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_a_limited_time_can_be_asked_for() {
        assert_eq!(seconds("FREEZE 30").unwrap(), 30);
        for line in ["", "FREEZE", "FREEZE 0", "FREEZE 301", "FREEZE -1", "THAW"] {
            assert!(seconds(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn lines_are_bounded_and_an_end_is_no_line() {
        let interrupts = Interrupts::block().unwrap();
        let talk = |text: &[u8]| {
            let (mut host, guest) = UnixStream::pair().unwrap();
            host.write_all(text).unwrap();
            drop(host);
            let mut guest = File::from(OwnedFd::from(guest));
            hear(&mut guest, &interrupts, None).unwrap()
        };
        assert_eq!(talk(b"THAW\nmore"), Heard::Line("THAW".to_owned()));
        assert_eq!(talk(b"THAW"), Heard::HungUp);
        let long = talk(&[b'x'; 100]);
        assert!(matches!(long, Heard::Line(line) if line.len() == MAX_LINE + 1));
    }

    #[test]
    fn a_host_that_says_nothing_is_waited_for_no_longer_than_it_may_take() {
        let interrupts = Interrupts::block().unwrap();
        let (_host, guest) = UnixStream::pair().unwrap();
        let mut guest = File::from(OwnedFd::from(guest));
        let heard = hear(&mut guest, &interrupts, Some(Instant::now())).unwrap();
        assert_eq!(heard, Heard::Timeout);
    }

    #[test]
    fn whoever_is_not_the_host_freezes_nothing() {
        let interrupts = Interrupts::block().unwrap();
        let (_other, guest) = UnixStream::pair().unwrap();
        let refused = session(guest.into(), &interrupts);
        assert!(matches!(refused, Err(FreezeError::NotTheHost)));
    }
}
