//! Asks a running slot for a snapshot, and follows how it goes.

use std::fs::File;
use std::io::{self, IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostnet::slot::SlotName;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vmm::snapshot::{Report, SnapshotSpec};

use super::{Client, ClientError, TIMEOUT};

/// What is asked.
const LINE: &str = "PUT /v1/vm/snapshot";

/// Longest line that is taken for a report.
const MAX_LINE: usize = 64 << 10;

/// How long a slot may take to give up. It looks ten times a second whether anybody listens.
const LAST_WAIT: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// Why a snapshot of a running slot was not taken. The slot runs on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotFailure {
    /// The slot says why.
    #[error("{slot} took no snapshot in {}: {reason}", place.display())]
    Failed {
        /// The slot.
        slot: SlotName,
        /// The directory that it would be in.
        place: PathBuf,
        /// Why.
        reason: String,
    },
    /// The slot's process is gone.
    #[error("{slot} was killed before the snapshot was complete")]
    Gone {
        /// The slot.
        slot: SlotName,
    },
    /// A signal came.
    #[error("The snapshot was given up ({signal}); the slot runs on")]
    Interrupted {
        /// The signal.
        signal: Signal,
    },
    /// The reports make no sense.
    #[error("{slot} reports what is not understood: is it another version of slotvmm?")]
    Report {
        /// The slot.
        slot: SlotName,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// There is something to read, or the other end is gone.
    Readable,
    /// A signal came.
    Signal(Signal),
    /// Neither.
    Timeout,
}

/// Signals that give a snapshot up instead of ending the process with half of it left.
pub(crate) struct Interrupts(SignalFd);

impl Interrupts {
    /// Blocks SIGINT, SIGTERM and SIGHUP in this process from here on.
    ///
    /// # Errors
    /// When the host refuses.
    pub(crate) fn block() -> io::Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block()?;
        Ok(Self(SignalFd::new(&signals)?))
    }

    /// Becomes readable when one of them has come.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Waits until there is something to read or a signal came.
    ///
    /// # Errors
    /// When the host refuses.
    pub(super) fn wait(&self, input: &impl AsFd, limit: Duration) -> io::Result<Waited> {
        let limit = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        loop {
            let mut ready = [
                PollFd::new(&self.0, PollFlags::IN),
                PollFd::new(input, PollFlags::IN),
            ];
            match poll(&mut ready, Some(&limit)) {
                Ok(0) => return Ok(Waited::Timeout),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let [signals, _] = ready.map(|one| !one.revents().is_empty());
            match signals.then(|| self.take()).flatten() {
                Some(signal) => return Ok(Waited::Signal(signal)),
                None if signals => {}
                None => return Ok(Waited::Readable),
            }
        }
    }

    fn take(&self) -> Option<Signal> {
        let info = self.0.read_signal().ok().flatten()?;
        Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()
    }
}

/// A snapshot that a running slot takes. Dropped before its end, the slot gives it up.
pub(crate) struct Following {
    slot: SlotName,
    place: PathBuf,
    reports: UnixStream,
    bytes: Vec<u8>,
}

impl Client {
    /// Has the slot fill `target`, an empty file below `place`.
    ///
    /// # Errors
    /// When the slot does not run, refuses, or does not answer properly.
    pub(crate) fn snapshot(
        &self,
        spec: &SnapshotSpec,
        (target, place): (&File, &Path),
    ) -> Result<Following, ClientError> {
        let talk = |source| self.talk_error(source);
        let body = serde_json::to_string(spec).map_err(|error| talk(error.into()))?;
        let (reports, theirs) = UnixStream::pair().map_err(talk)?;
        let mut stream =
            UnixStream::connect(&self.socket).map_err(|error| self.no_socket(error))?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(talk)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(talk)?;
        let request = format!(
            "{LINE} HTTP/1.1\r\nHost: slotvmm\r\nAccept: application/json\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        send(
            &stream,
            request.as_bytes(),
            [target.as_fd(), theirs.as_fd()],
        )
        .map_err(talk)?;
        // The slot has it; with ours open as well, its death would go unnoticed.
        drop(theirs);
        self.read_answer(&mut stream, LINE)?;
        Ok(Following {
            slot: self.slot.clone(),
            place: place.to_owned(),
            reports,
            bytes: Vec::new(),
        })
    }
}

/// Sends all of `bytes`, with the descriptors beside the first of them.
fn send(stream: &UnixStream, bytes: &[u8], descriptors: [BorrowedFd<'_>; 2]) -> io::Result<()> {
    use std::io::Write as _;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let message = [IoSlice::new(bytes)];
    let sent = sendmsg(stream, &message, &mut ancillary, SendFlags::NOSIGNAL)?;
    let mut stream = stream;
    stream.write_all(bytes.get(sent..).unwrap_or_default())
}

impl Following {
    /// Waits for the next report. There is none after [`Report::Done`].
    ///
    /// # Errors
    /// When the snapshot failed, a signal came, or the slot's process is gone.
    pub(crate) fn next(&mut self, interrupts: &Interrupts) -> Result<Report, SnapshotFailure> {
        loop {
            if let Some(line) = self.line() {
                return match serde_json::from_slice(&line) {
                    Ok(Report::Failed { error }) => Err(SnapshotFailure::Failed {
                        slot: self.slot.clone(),
                        place: self.place.clone(),
                        reason: error,
                    }),
                    Ok(report) => Ok(report),
                    Err(error) => Err(self.broken(error.into())),
                };
            }
            self.fill(interrupts)?;
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
        Some(self.bytes.drain(..=end).collect())
    }

    fn fill(&mut self, interrupts: &Interrupts) -> Result<(), SnapshotFailure> {
        let mut ready = [
            PollFd::new(&self.reports, PollFlags::IN),
            PollFd::new(&interrupts.0, PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(self.broken(errno.into())),
        }
        let [reports, signals] = ready.map(|one| !one.revents().is_empty());
        if signals && let Some(signal) = interrupts.take() {
            self.give_up();
            return Err(SnapshotFailure::Interrupted { signal });
        }
        if !reports {
            return Ok(());
        }
        let mut buffer = [0; 4096];
        match self.reports.read(&mut buffer) {
            Ok(0) => Err(SnapshotFailure::Gone {
                slot: self.slot.clone(),
            }),
            Ok(_) if self.bytes.len() > MAX_LINE => {
                Err(self.broken(io::ErrorKind::InvalidData.into()))
            }
            Ok(count) => {
                self.bytes
                    .extend_from_slice(buffer.get(..count).unwrap_or_default());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.broken(error)),
        }
    }

    /// Has the slot give up, and waits until it has: before, it refuses another snapshot.
    fn give_up(&self) {
        // The slot's next report fails. Where this does, the connection has ended anyhow.
        let _ = self.reports.shutdown(Shutdown::Read);
        // Its end of the connection is closed last; that is reported without being asked for.
        let mut closed = [PollFd::new(&self.reports, PollFlags::empty())];
        let _ = poll(&mut closed, Some(&LAST_WAIT));
    }

    fn broken(&self, source: io::Error) -> SnapshotFailure {
        SnapshotFailure::Report {
            slot: self.slot.clone(),
            source,
        }
    }
}
