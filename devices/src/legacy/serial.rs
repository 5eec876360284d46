//! The 16550 serial port: the guest's console.
//!
//! Bounded both ways. Input waits in a FIFO of 64 bytes, and [`SerialPort::enqueue`] says how much
//! of it fits. Output is not kept here at all: each byte goes to the sink while the guest waits.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use vm_superio::serial::{Error, SerialEvents};
use vm_superio::{Serial, SerialState, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::bus::BusDevice;
use crate::log_limit::LogLimit;
use crate::state::StateError;

/// Number of ports.
pub const PORTS: u64 = 8;

/// Version of the layout of [`SerialPortState`].
pub const SERIAL_STATE_VERSION: u16 = 1;

/// Modem control register, whose loop-back bit keeps input out.
const MODEM_CONTROL: u8 = 4;

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
            *value = self.port.read(register);
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

/// The saved state of a serial port. Untrusted when it is read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialPortState {
    /// Divisor latch, low byte.
    pub divisor_low: u8,
    /// Divisor latch, high byte.
    pub divisor_high: u8,
    /// Interrupt enable register.
    pub interrupt_enable: u8,
    /// Interrupt identification register.
    pub interrupt_identification: u8,
    /// Line control register.
    pub line_control: u8,
    /// Line status register.
    pub line_status: u8,
    /// Modem control register.
    pub modem_control: u8,
    /// Modem status register.
    pub modem_status: u8,
    /// Scratch register.
    pub scratch: u8,
    /// Input that the guest has not read, at most 64 bytes.
    pub input: Vec<u8>,
}

impl From<SerialState> for SerialPortState {
    fn from(state: SerialState) -> Self {
        Self {
            divisor_low: state.baud_divisor_low,
            divisor_high: state.baud_divisor_high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            input: state.in_buffer,
        }
    }
}

impl From<SerialPortState> for SerialState {
    fn from(state: SerialPortState) -> Self {
        Self {
            baud_divisor_low: state.divisor_low,
            baud_divisor_high: state.divisor_high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            in_buffer: state.input,
        }
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(data);
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Refusing;

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn port(output: impl Write + Send + 'static) -> (SerialPort, EventFd) {
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        let port = SerialPort::new(irq.try_clone().unwrap(), Box::new(output)).unwrap();
        (port, irq)
    }

    fn read(port: &mut SerialPort, register: u64) -> u8 {
        let mut value = [0];
        port.read(register, &mut value);
        value[0]
    }

    #[test]
    fn output_reaches_the_sink_byte_for_byte() {
        let output = Output::default();
        let (mut port, _irq) = port(output.clone());
        let sent: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
        for byte in &sent {
            port.write(0, &[*byte]);
        }
        assert_eq!(*output.0.lock().unwrap(), sent);
        assert_eq!(port.lost(), 0);
    }

    #[test]
    fn refused_output_is_counted() {
        let (mut port, _irq) = port(Refusing);
        for _ in 0..1000 {
            port.write(0, b"x");
        }
        assert_eq!(port.lost(), 1000);
        assert_ne!(
            read(&mut port, 5) & 0x20,
            0,
            "the transmitter is ready all the same"
        );
    }

    #[test]
    fn input_of_any_length_arrives_through_a_bounded_fifo() {
        let (mut port, irq) = port(Output::default());
        port.write(1, &[1]);
        let input: Vec<u8> = (0..=u8::MAX).cycle().take(10_000).collect();
        let (mut offered, mut received) = (0, Vec::new());
        while received.len() < input.len() {
            let fit = port.enqueue(&input[offered..]).unwrap();
            assert!(fit <= 64);
            offered += fit;
            irq.read().unwrap();
            while read(&mut port, 5) & 1 != 0 {
                received.push(read(&mut port, 0));
            }
            if offered < input.len() {
                port.space().read().unwrap();
            }
        }
        assert_eq!(received, input);
        assert!(
            port.space().read().is_err(),
            "nobody waits for space any more"
        );
    }

    #[test]
    fn input_refused_in_loop_back_is_announced_afterwards() {
        let (mut port, _irq) = port(Output::default());
        port.write(4, &[0x10]);
        assert_eq!(port.enqueue(b"abc").unwrap(), 0);
        assert!(port.space().read().is_err());
        port.write(4, &[0]);
        port.space().read().unwrap();
        assert_eq!(port.enqueue(b"abc").unwrap(), 3);
    }

    #[test]
    fn accesses_of_other_widths_and_offsets_do_nothing() {
        let output = Output::default();
        let (mut port, _irq) = port(output.clone());
        port.write(0, b"ab");
        port.write(8, b"a");
        port.write(u64::MAX, b"a");
        let mut word = [0xff; 4];
        port.read(0, &mut word);
        assert_eq!(word, [0; 4]);
        assert!(output.0.lock().unwrap().is_empty());
    }

    #[test]
    fn restored_port_keeps_input_and_raises_what_was_pending() {
        let (mut old, irq) = port(Output::default());
        old.write(1, &[1]);
        old.enqueue(b"hello").unwrap();
        irq.read().unwrap();
        let state = old.save();

        let mut new =
            SerialPort::restore(irq.try_clone().unwrap(), Box::new(io::sink()), &state).unwrap();
        irq.read().unwrap();
        assert_eq!(new.save(), state);
        assert_eq!(read(&mut new, 0), b'h');
    }

    #[test]
    fn state_with_too_much_input_is_refused() {
        let (old, irq) = port(Output::default());
        let state = SerialPortState {
            input: vec![0; 65],
            ..old.save()
        };
        let restored = SerialPort::restore(irq, Box::new(io::sink()), &state);
        assert!(matches!(restored, Err(SerialError::State(_))));
    }
}
