//! What the asker hears: lines of JSON on a socket.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use serde::{Deserialize, Serialize};

use super::Backend;

/// How a snapshot goes. The last one is `Done` or `Failed`; without it, the process has died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// Data is being flushed while the guest runs.
    Flushing,
    /// The guest was halted and goes on; the snapshot's content is decided.
    Taken {
        /// How the content comes into the file.
        backend: Backend,
        /// How long the guest was halted; nothing when it was halted before.
        pause: Option<Pause>,
    },
    /// The copy goes on.
    Progress {
        /// Bytes copied.
        copied: u64,
        /// Bytes of the image that need no more looking at.
        settled: u64,
        /// Bytes of the image.
        size: u64,
    },
    /// The file is complete and durable.
    Done {
        /// Bytes copied; the rest is shared or holes.
        copied: u64,
    },
    /// There is no snapshot, and the machine runs on.
    Failed {
        /// Why, for people.
        error: String,
    },
}

/// How long the guest and its disk stood still, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pause {
    /// Before the pause: requests in flight were completed, and the guest's further ones waited.
    pub drain_us: u64,
    /// The pause: from asking the vCPUs to stop until they were let go again.
    pub total_us: u64,
    /// Of it, until every vCPU was out of the guest.
    pub halt_us: u64,
    /// Of it, while the content was decided.
    pub decide_us: u64,
    /// Of it, until every vCPU was let go.
    pub resume_us: u64,
}

/// A duration in whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The end of the socket that reports are written to.
#[derive(Debug)]
pub(super) struct Reporter {
    socket: OwnedFd,
    /// What did not fit into the socket: the rest of a line, which nothing may come before.
    rest: Vec<u8>,
}

impl Reporter {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            rest: Vec::new(),
        }
    }

    /// Sends one line without waiting: one that does not fit is left out, since whoever does not
    /// read must not hold the snapshot up.
    ///
    /// # Errors
    /// When the other end is closed.
    pub(super) fn tell(&mut self, report: &Report) -> io::Result<()> {
        if !self.rest.is_empty() {
            self.send_rest()?;
        }
        if self.rest.is_empty() {
            self.rest = serde_json::to_vec(report)?;
            self.rest.push(b'\n');
            let whole = self.rest.len();
            self.send_rest()?;
            if self.rest.len() == whole {
                self.rest.clear();
            }
        }
        Ok(())
    }

    /// Sends the last line, which counts: waits a little for whoever does not read.
    pub(super) fn tell_last(&mut self, report: &Report) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        self.rest.extend(serde_json::to_vec(report)?);
        self.rest.push(b'\n');
        self.send_rest()?;
        while !self.rest.is_empty() {
            let patience = Timespec {
                tv_sec: 5,
                tv_nsec: 0,
            };
            let mut writable = [PollFd::new(&self.socket, PollFlags::OUT)];
            if poll(&mut writable, Some(&patience))? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.send_rest()?;
        }
        Ok(())
    }

    fn send_rest(&mut self) -> io::Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match send(&self.socket, &self.rest, flags) {
            Ok(sent) => drop(self.rest.drain(..sent)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn who_does_not_read_misses_whole_lines_only_and_never_the_last() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut reporter = Reporter::new(ours.into());
        for copied in 0..100_000 {
            let (settled, size) = (copied, 1 << 40);
            let report = Report::Progress {
                copied,
                settled,
                size,
            };
            reporter.tell(&report).unwrap();
        }
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            theirs.read_to_string(&mut text).unwrap();
            text
        });
        reporter.tell_last(&Report::Done { copied: 7 }).unwrap();
        drop(reporter);
        let text = reader.join().unwrap();
        let reports: Vec<Report> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(reports.len() < 100_000);
        assert_eq!(reports.last(), Some(&Report::Done { copied: 7 }));
    }

    #[test]
    fn a_closed_end_is_an_error_and_no_signal() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(Reporter::new(ours.into()).tell(&Report::Flushing).is_err());
    }
}
