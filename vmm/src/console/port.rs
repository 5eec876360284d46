//! The guest's end of the input.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use devices::console::Input;
use devices::legacy::serial::SerialPort;
use vmm_sys_util::eventfd::EventFd;

/// What takes input for the guest.
pub(super) trait Port: Send + Sync {
    /// Returns how many bytes fit, from the start of `input`.
    fn enqueue(&self, input: &[u8]) -> usize;

    /// Each fires when there is room again after not everything fitted.
    fn spaces(&self) -> io::Result<Vec<EventFd>>;
}

impl Port for Mutex<SerialPort> {
    fn enqueue(&self, input: &[u8]) -> usize {
        let mut port = self.lock().unwrap_or_else(PoisonError::into_inner);
        port.enqueue(input).unwrap_or_else(|error| {
            tracing::debug!(%error, "console input was not accepted");
            0
        })
    }

    fn spaces(&self) -> io::Result<Vec<EventFd>> {
        let port = self.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(vec![port.space().try_clone()?])
    }
}

/// A serial port, and the virtio console that takes its place once the guest has a driver for it.
pub(super) struct Both {
    pub(super) serial: Arc<Mutex<SerialPort>>,
    pub(super) virtio: Arc<Input>,
}

impl Port for Both {
    fn enqueue(&self, input: &[u8]) -> usize {
        if self.virtio.is_heard() {
            self.virtio.enqueue(input)
        } else {
            self.serial.enqueue(input)
        }
    }

    fn spaces(&self) -> io::Result<Vec<EventFd>> {
        let mut spaces = self.serial.spaces()?;
        spaces.push(self.virtio.space().try_clone()?);
        Ok(spaces)
    }
}
