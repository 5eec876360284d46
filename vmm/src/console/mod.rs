//! The console of a machine: from the serial port to whoever listens, and back.
//!
//! The port's bytes go into a bounded [`Outbox`] on the vCPU thread; the console thread carries
//! them on to this process's output, to a ring that a new listener sees first, and to every
//! attached client. A listener that does not keep up loses its oldest bytes; only the process's
//! own output holds the guest up.

mod hub;
mod outbox;
mod watch;

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use devices::legacy::serial::SerialPort;

use crate::events::EventSender;
use crate::phases::Phases;
use crate::readiness::Board;

pub use outbox::{Outbox, OutboxWriter};
use watch::Watch;

/// How long the end of a machine waits for the last output to be taken.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Where the console leads.
#[derive(Default)]
pub struct ConsoleEnds {
    /// Gets every byte; usually standard output. A slow one slows the guest down.
    pub output: Option<Box<dyn Write + Send>>,
    /// A client attached from the first byte on, both ways.
    pub client: Option<UnixStream>,
    /// Where more clients attach.
    pub listener: Option<UnixListener>,
}

/// A running console.
pub struct Console {
    outbox: Arc<Outbox>,
    thread: JoinHandle<()>,
}

/// The guest's side of a console that is not running yet: what the serial port writes to.
/// What it shows may make the guest ready: `board` knows.
pub fn outbox(
    events: EventSender,
    phases: Arc<Phases>,
    board: Arc<Board>,
) -> io::Result<Arc<Outbox>> {
    Ok(Arc::new(Outbox::new(Watch::new(events, phases, board))?))
}

impl Console {
    /// Starts the console thread between `outbox` and `port`.
    ///
    /// # Errors
    /// When the host refuses a thread or a descriptor.
    pub fn start(
        outbox: Arc<Outbox>,
        port: Arc<Mutex<SerialPort>>,
        ends: ConsoleEnds,
    ) -> io::Result<Self> {
        let hub = hub::Hub::new(outbox.clone(), port, ends)?;
        let thread = thread::Builder::new()
            .name("console".to_owned())
            .spawn(move || {
                if let Err(error) = hub.run() {
                    tracing::error!(%error, "console failed; the machine runs on without it");
                }
            })?;
        Ok(Self { outbox, thread })
    }

    /// Ends the console once everything the guest said has been passed on, or after half a second
    /// when nobody takes it.
    pub fn finish(self) {
        if self.outbox.close(LAST_WORDS) {
            // A panicked console thread has nothing left to say.
            let _ = self.thread.join();
        }
    }
}
