//! A snapshot that a running slot is asked for as `slotvmm snapshot` asks, watched from close by: there
//! is no process to start, and it can be given up once the guest runs on.

use std::fs::File;
use std::io::{BufRead as _, BufReader, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vmm::snapshot::{Pause, Report, SnapshotSpec};

use crate::host::Outcome;

/// How long the slot may take to answer, or to give up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest pause that is no failure, in milliseconds: it is to be measured.
const PAUSE_LIMIT_MS: u32 = 60_000;

/// A snapshot under way.
#[derive(Debug)]
pub struct Order {
    reports: BufReader<UnixStream>,
}

impl Order {
    /// Asks the slot whose control socket this is to fill `target`, an empty file.
    ///
    /// # Errors
    /// When the slot refuses or does not answer.
    pub fn place(socket: &Path, target: &File) -> Outcome<Self> {
        let spec = SnapshotSpec {
            pause_limit_ms: PAUSE_LIMIT_MS,
            ..SnapshotSpec::of("data")
        };
        let body = serde_json::to_string(&spec)?;
        let (reports, theirs) = UnixStream::pair()?;
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = format!(
            "PUT /v1/vm/snapshot HTTP/1.1\r\nHost: slotvmm\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let descriptors = [target.as_fd(), theirs.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        let message = [IoSlice::new(request.as_bytes())];
        let sent = sendmsg(&stream, &message, &mut ancillary, SendFlags::NOSIGNAL)?;
        stream.write_all(request.as_bytes().get(sent..).unwrap_or_default())?;
        drop(theirs);
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 20") {
            return Err(format!("The slot takes no snapshot: {answer}").into());
        }
        let reports = BufReader::new(reports);
        Ok(Self { reports })
    }

    /// Waits until the content is decided and the guest runs on.
    ///
    /// # Errors
    /// When there is no snapshot, or the guest was not halted for it.
    pub fn wait_taken(&mut self) -> Outcome<Pause> {
        loop {
            if let Report::Taken { pause, .. } = self.next()? {
                return Ok(pause.ok_or("The guest was halted before")?);
            }
        }
    }

    /// Waits until the content is on the host's disk, and returns how many bytes were copied.
    ///
    /// # Errors
    /// When there is no snapshot.
    pub fn wait_done(mut self) -> Outcome<u64> {
        loop {
            if let Report::Done { copied } = self.next()? {
                return Ok(copied);
            }
        }
    }

    /// Has the slot give the snapshot up, and waits until it has.
    ///
    /// # Errors
    /// When the connection fails, or the slot does not give up.
    pub fn give_up(self) -> Outcome<()> {
        let reports = self.reports.get_ref();
        reports.shutdown(Shutdown::Read)?;
        let mut closed = [PollFd::new(reports, PollFlags::empty())];
        let limit = Timespec {
            tv_sec: i64::try_from(PATIENCE.as_secs())?,
            tv_nsec: 0,
        };
        match poll(&mut closed, Some(&limit))? {
            0 => Err("The slot does not give the snapshot up".into()),
            _ => Ok(()),
        }
    }

    fn next(&mut self) -> Outcome<Report> {
        let mut line = String::new();
        if self.reports.read_line(&mut line)? == 0 {
            return Err("The slot has gone".into());
        }
        match serde_json::from_str(&line)? {
            Report::Failed { error } => Err(error.into()),
            report => Ok(report),
        }
    }
}
