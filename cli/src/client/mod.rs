//! Talks to the control socket of a running slot: HTTP/1.1 with JSON over a Unix socket, one
//! request per connection.

mod freeze;
mod http;
mod snapshot;

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostnet::slot::SlotName;
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub(crate) use self::freeze::{FreezeError, Frozen};
use self::http::Malformed;
pub(crate) use self::snapshot::{Following, Interrupts, SnapshotFailure};

/// How long a request may take. The slot answers at once; what takes long happens after the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Method and path of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask {
    /// Describe the machine.
    Info,
    /// Halt it.
    Pause,
    /// Let it go on.
    Resume,
    /// Press the power button.
    PowerButton,
    /// End it now.
    Shutdown,
}

impl Ask {
    fn line(self) -> &'static str {
        match self {
            Self::Info => "GET /v1/vm",
            Self::Pause => "PUT /v1/vm/pause",
            Self::Resume => "PUT /v1/vm/resume",
            Self::PowerButton => "PUT /v1/vm/power-button",
            Self::Shutdown => "PUT /v1/vm/shutdown",
        }
    }
}

/// The control socket of one slot.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    slot: SlotName,
    socket: PathBuf,
}

/// The body of an answer that is not a success.
#[derive(Debug, Deserialize)]
struct Refusal {
    error: String,
}

impl Client {
    /// For the slot whose control socket is at `socket`.
    pub(crate) fn new(slot: SlotName, socket: PathBuf) -> Self {
        Self { slot, socket }
    }

    /// The slot this talks to.
    pub(crate) fn slot(&self) -> &SlotName {
        &self.slot
    }

    /// Asks for something that has no answer but success.
    ///
    /// # Errors
    /// When the slot does not run, refuses, or does not answer properly.
    pub(crate) fn tell(&self, ask: Ask) -> Result<(), ClientError> {
        self.send(ask).map(drop)
    }

    /// Asks for something that is answered.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub(crate) fn ask<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, ClientError> {
        let body = self.send(ask)?;
        serde_json::from_slice(&body).map_err(|source| ClientError::Body {
            slot: self.slot.clone(),
            source,
        })
    }

    fn send(&self, ask: Ask) -> Result<Vec<u8>, ClientError> {
        let talk = |source| self.talk_error(source);
        let mut stream =
            UnixStream::connect(&self.socket).map_err(|error| self.no_socket(error))?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(talk)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(talk)?;
        let request = format!(
            "{} HTTP/1.1\r\nHost: slotvmm\r\nAccept: application/json\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n",
            ask.line()
        );
        stream.write_all(request.as_bytes()).map_err(talk)?;
        self.read_answer(&mut stream, ask.line())
    }

    /// Reads the answer to `request`: its body when it is a success.
    fn read_answer(
        &self,
        stream: &mut UnixStream,
        request: &'static str,
    ) -> Result<Vec<u8>, ClientError> {
        let answer = http::read(stream).map_err(|source| self.talk_error(source))?;
        let answer = answer.map_err(|source| ClientError::Answer {
            slot: self.slot.clone(),
            source,
        })?;
        if (200..300).contains(&answer.status) {
            return Ok(answer.body);
        }
        let reason = match serde_json::from_slice::<Refusal>(&answer.body) {
            Ok(refusal) => refusal.error,
            Err(_) => format!("status {}", answer.status),
        };
        Err(ClientError::Refused {
            slot: self.slot.clone(),
            request,
            reason,
        })
    }

    fn no_socket(&self, source: io::Error) -> ClientError {
        no_socket("control", &self.slot, &self.socket, source)
    }

    fn talk_error(&self, source: io::Error) -> ClientError {
        let slot = self.slot.clone();
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Silent {
                slot,
                seconds: TIMEOUT.as_secs(),
            },
            _ => ClientError::Talk { slot, source },
        }
    }
}

/// Says why a socket of a slot cannot be connected to. A socket that nobody listens on is what a
/// killed process left.
pub(crate) fn no_socket(
    kind: &'static str,
    slot: &SlotName,
    socket: &Path,
    source: io::Error,
) -> ClientError {
    let (slot, socket) = (slot.clone(), socket.to_owned());
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ClientError::NotRunning { slot, kind, socket }
        }
        io::ErrorKind::PermissionDenied => ClientError::Denied {
            slot,
            kind,
            socket,
            source,
        },
        _ => ClientError::Talk { slot, source },
    }
}

/// Why a running slot could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The slot does not run.
    #[error("{slot} is not running: no {kind} socket at {}", socket.display())]
    NotRunning {
        /// The slot.
        slot: SlotName,
        /// Which socket.
        kind: &'static str,
        /// Where it would be.
        socket: PathBuf,
    },
    /// The socket belongs to someone else.
    #[error("No permission to use the {kind} socket {} of {slot}: run as its owner", socket.display())]
    Denied {
        /// The slot.
        slot: SlotName,
        /// Which socket.
        kind: &'static str,
        /// The socket.
        socket: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The slot does not answer.
    #[error("{slot} did not answer within {seconds} seconds: it may hang")]
    Silent {
        /// The slot.
        slot: SlotName,
        /// How long it had.
        seconds: u64,
    },
    /// The connection broke.
    #[error("Failed to talk to {slot}")]
    Talk {
        /// The slot.
        slot: SlotName,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The answer is not HTTP as we speak it.
    #[error("{slot} gave an answer that is not understood: is it another version of slotvmm?")]
    Answer {
        /// The slot.
        slot: SlotName,
        /// What is wrong with it.
        #[source]
        source: Malformed,
    },
    /// The answer's body is not what was asked for.
    #[error("{slot} gave an answer that is not understood: is it another version of slotvmm?")]
    Body {
        /// The slot.
        slot: SlotName,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The slot said no.
    #[error("{slot} refused {request}: {reason}")]
    Refused {
        /// The slot.
        slot: SlotName,
        /// What was asked.
        request: &'static str,
        /// What it said.
        reason: String,
    },
}
