//! The console of a machine: from the serial port, or the virtio console, to whoever listens, and back.
//!
//! The port's bytes go into a bounded [`Outbox`]; the console thread carries
//! them on to this process's output, to a ring that a new listener sees first, and to every
//! attached client. A listener that does not keep up loses its oldest bytes; only the process's
//! own output holds the guest up.

mod hub;
mod outbox;
mod port;
mod watch;

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use devices::console::{ConsoleHost, Input};
use devices::legacy::serial::SerialPort;
use devices::registry::{DeviceConfig, HostHandles};

use crate::events::EventSender;
use crate::phases::Phases;
use crate::readiness::Board;

pub use outbox::{Outbox, OutboxOutput, OutboxWriter};
use port::{Both, Port};
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

/// Connects the virtio console, if the machine has one, to `outbox`. Returns where its input goes.
///
/// # Errors
/// When the host refuses a descriptor.
pub fn connect(
    devices: &[DeviceConfig],
    host: &mut HostHandles,
    outbox: &Arc<Outbox>,
) -> io::Result<Option<Arc<Input>>> {
    let is_console = |device: &&DeviceConfig| matches!(device, DeviceConfig::Console(_));
    let Some(device) = devices.iter().find(is_console) else {
        return Ok(None);
    };
    let input = Arc::new(Input::new()?);
    let console = ConsoleHost {
        input: input.clone(),
        output: Box::new(OutboxOutput(outbox.clone())),
    };
    host.add_console(device.id().clone(), console);
    Ok(Some(input))
}

impl Console {
    /// Starts the console thread between `outbox` and the guest's input: `serial`, or `virtio` of a
    /// machine that has such a console, once a driver serves it.
    ///
    /// # Errors
    /// When the host refuses a thread or a descriptor.
    pub fn start(
        outbox: Arc<Outbox>,
        (serial, virtio): (Arc<Mutex<SerialPort>>, Option<Arc<Input>>),
        ends: ConsoleEnds,
    ) -> io::Result<Self> {
        let port: Arc<dyn Port> = match virtio {
            Some(virtio) => Arc::new(Both { serial, virtio }),
            None => serial,
        };
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
