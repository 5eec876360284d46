//! The 16550 serial port: the guest's console.
//!
//! Bounded both ways. Input waits in a FIFO of 64 bytes, and [`SerialPort::enqueue`] says how much
//! of it fits. Output is not kept here at all: each byte goes to the sink while the guest waits.

mod state;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vm_superio::serial::{Error, SerialEvents};
use vm_superio::{Serial, SerialState, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::bus::BusDevice;
use crate::log_limit::LogLimit;
use crate::state::StateError;

pub use state::{SERIAL_STATE_VERSION, SerialPortState};

/// Number of ports.
pub const PORTS: u64 = 8;

/// Interrupt enable register, while the divisor latch is out of sight.
const INTERRUPT_ENABLE: u8 = 1;

/// In it: interrupt while there is input.
const ENABLE_INPUT: u8 = 1 << 0;

/// Interrupt identification register, to be read.
const INTERRUPT_IDENTIFICATION: u8 = 2;

/// In it: no interrupt is pending.
const NOTHING_PENDING: u8 = 1 << 0;

/// In it: there is input.
const INPUT_PENDING: u8 = 1 << 2;

/// Line control register.
const LINE_CONTROL: u8 = 3;

/// In it: the divisor latch is in the place of other registers.
const DIVISOR_LATCH: u8 = 1 << 7;

/// Modem control register, whose loop-back bit keeps input out.
const MODEM_CONTROL: u8 = 4;

/// Line status register.
const LINE_STATUS: u8 = 5;

/// In it: there is input.
const DATA_READY: u8 = 1 << 0;

/// The port.
///
/// The output sink is called on a vCPU thread with single bytes, each followed by a `flush`. It
/// may block: then the guest waits, as on a slow line. When it returns an error (`WouldBlock`
/// included) the byte is lost, which is counted in [`lost`](Self::lost) and logged; a sink that
/// rather drops than blocks has to count for itself.
pub struct SerialPort {
    port: Serial<Line, Arc<Events>, Box<dyn Write + Send>>,
    events: Arc<Events>,
    space: EventFd,
    losses: LogLimit,
}

struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

struct Events {
    space: EventFd,
    /// An `enqueue` left bytes over and waits for room.
    waiting: AtomicBool,
    lost: AtomicU64,
}

impl Events {
    fn announce_space(&self) {
        if self.waiting.swap(false, Ordering::AcqRel) {
            // The write only fails when the counter is full, and then the reader is awake already.
            let _ = self.space.write(1);
        }
    }
}

impl SerialEvents for Events {
    fn buffer_read(&self) {}

    fn out_byte(&self) {}

    fn tx_lost_byte(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    fn in_buffer_empty(&self) {
        self.announce_space();
    }
}

impl SerialPort {
    /// A port as after power-on, which interrupts by writing 1 to `irq`.
    ///
    /// # Errors
    /// When the host refuses an eventfd.
    pub fn new(irq: EventFd, output: Box<dyn Write + Send>) -> Result<Self, SerialError> {
        Self::with_state(irq, output, &SerialState::default())
    }

    /// A port in a saved state; it raises the interrupts that were pending.
    ///
    /// # Errors
    /// When the state is impossible, or the host refuses an eventfd or an interrupt.
    pub fn restore(
        irq: EventFd,
        output: Box<dyn Write + Send>,
        state: &SerialPortState,
    ) -> Result<Self, SerialError> {
        Self::with_state(irq, output, &state.clone().into())
    }

    fn with_state(
        irq: EventFd,
        output: Box<dyn Write + Send>,
        state: &SerialState,
    ) -> Result<Self, SerialError> {
        let space = EventFd::new(EFD_NONBLOCK).map_err(SerialError::Eventfd)?;
        let events = Arc::new(Events {
            space: space.try_clone().map_err(SerialError::Eventfd)?,
            waiting: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        });
        let port =
            Serial::from_state(state, Line(irq), events.clone(), output).map_err(|error| {
                match error {
                    Error::Trigger(source) | Error::IOError(source) => {
                        SerialError::Interrupt(source)
                    }
                    Error::FullFifo => SerialError::State(StateError::Invalid {
                        kind: "serial",
                        field: "input",
                    }),
                }
            })?;
        Ok(Self {
            port,
            events,
            space,
            losses: LogLimit::new(),
        })
    }

    /// Gives the guest input. Returns how many bytes fit, from the start of `input`; the rest is
    /// the caller's to keep until [`space`](Self::space) fires.
    ///
    /// # Errors
    /// When the interrupt could not be raised; the bytes that fit are in the FIFO even so.
    pub fn enqueue(&mut self, input: &[u8]) -> Result<usize, SerialError> {
        let before = self.port.fifo_capacity();
        let result = self.port.enqueue_raw_bytes(input);
        let taken = before.saturating_sub(self.port.fifo_capacity());
        if taken < input.len() {
            self.events.waiting.store(true, Ordering::Release);
        }
        match result {
            Ok(_) | Err(Error::FullFifo) => Ok(taken),
            Err(Error::Trigger(source) | Error::IOError(source)) => {
                Err(SerialError::Interrupt(source))
            }
        }
    }

    /// Fires when there is room again after an [`enqueue`](Self::enqueue) that left bytes over.
    /// Non-blocking.
    pub fn space(&self) -> &EventFd {
        &self.space
    }

    /// Bytes of output that the sink refused so far.
    pub fn lost(&self) -> u64 {
        self.events.lost.load(Ordering::Relaxed)
    }

    /// The state of the registers and the input that waits.
    pub fn save(&self) -> SerialPortState {
        self.port.state().into()
    }

    /// The interrupt for input belongs to a level: it is pending as long as there is input. The
    /// crate `vm-superio` takes it back when it was read, or with the first byte. Linux reads 256
    /// bytes at most and looks again: told that nothing is pending, it would leave the rest where
    /// it is, for good.
    fn read_register(&mut self, register: u8) -> u8 {
        let value = self.port.read(register);
        if register == INTERRUPT_IDENTIFICATION && self.wants_input_read() {
            value & !NOTHING_PENDING | INPUT_PENDING
        } else {
            value
        }
    }

    /// Whether there is input, and an interrupt wanted while there is.
    fn wants_input_read(&mut self) -> bool {
        let latched = self.port.read(LINE_CONTROL) & DIVISOR_LATCH != 0;
        !latched
            && self.port.read(INTERRUPT_ENABLE) & ENABLE_INPUT != 0
            && self.port.read(LINE_STATUS) & DATA_READY != 0
    }

    fn write_register(&mut self, register: u8, value: u8) {
        let result = self.port.write(register, value);
        if register == MODEM_CONTROL {
            // Input that found the port in loop-back is welcome once it is not.
            self.events.announce_space();
        }
        if let Err(error) = result
            && let Some(count) = self.losses.next()
        {
            tracing::warn!(count, lost = self.lost(), %error, "Serial port failed to write output or to interrupt");
        }
    }
}

impl BusDevice for SerialPort {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let ([value], Some(register)) = (data, register(offset)) {
            *value = self.read_register(register);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let (&[value], Some(register)) = (data, register(offset)) {
            self.write_register(register, value);
        }
    }
}

fn register(offset: u64) -> Option<u8> {
    u8::try_from(offset).ok().filter(|_| offset < PORTS)
}

/// Why a serial port failed.
#[derive(Debug, thiserror::Error)]
pub enum SerialError {
    /// The host refused an eventfd.
    #[error("Serial port: failed to create an eventfd")]
    Eventfd(#[source] io::Error),
    /// The interrupt was not raised.
    #[error("Serial port: failed to raise its interrupt")]
    Interrupt(#[source] io::Error),
    /// The saved state was not accepted.
    #[error("Serial port: saved state was not accepted")]
    State(#[source] StateError),
}
