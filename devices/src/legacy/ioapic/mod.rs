//! A userspace I/O APIC (Intel 82093AA) for a machine whose local APICs are in the kernel.
//!
//! Pure register logic: it turns redirection entries into MSI messages and says whenever the
//! message of a pin changes. Edge-triggered pins are wired by the machine (an eventfd that fires
//! the pin's message) and never pass through here; level-triggered pins do, by
//! [`IoApic::set_line`] and [`IoApic::eoi`].
//!
//! Not modelled: the APIC bus (`ARB` repeats `ID`) and interrupts of a PIC (`ExtINT`).

mod redirection;
mod state;

#[cfg(test)]
mod tests;

use redirection::Redirection;
pub use redirection::{MsiMessage, Trigger};
pub use state::{IOAPIC_STATE_VERSION, IoApicState};

use crate::bus::BusDevice;
use crate::log_limit::LogLimit;

/// Most pins that there may be.
const MAX_COUNT: u8 = 24;
/// The same as a length.
pub const PINS: usize = MAX_COUNT as usize;

/// Bytes of the register page.
pub const PAGE_BYTES: u64 = 0x1000;

/// Offset of the register that selects a register.
pub const IOREGSEL: u64 = 0x00;
/// Offset of the window on the selected register.
pub const IOWIN: u64 = 0x10;

const REG_ID: u8 = 0x00;
const REG_VERSION: u8 = 0x01;
const REG_ARBITRATION: u8 = 0x02;
const REG_REDIRECTION: u8 = 0x10;

/// 82093AA.
const VERSION: u32 = 0x11;
/// Where the version register has the number of the last pin.
const LAST_PIN_SHIFT: u32 = 16;
const ID_SHIFT: u32 = 24;
const ID_MASK: u8 = 0x0f;

/// Where the messages of the pins go; the machine implements it on its interrupt routing.
pub trait RouteSink: Send {
    /// From now on pin number `pin` sends `message`, or nothing when it is masked or its entry
    /// makes no interrupt. Called only when that changes.
    fn update(&mut self, pin: u8, message: Option<MsiMessage>);

    /// Sends `message` once, for the level-triggered pin number `pin`.
    fn deliver(&mut self, pin: u8, message: MsiMessage);
}

/// State of the wire on a level-triggered pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// The device wants service.
    Asserted,
    /// It does not.
    Idle,
}

/// The I/O APIC; registers are read and written through [`BusDevice`].
pub struct IoApic {
    selected: u8,
    id: u8,
    /// Pins from this one on do not exist for the driver, and stay as they are.
    count: u8,
    pins: [Pin; PINS],
    sink: Box<dyn RouteSink>,
    ignored: LogLimit,
}

#[derive(Debug, Clone, Copy)]
struct Pin {
    entry: Redirection,
    line: Line,
    /// What the sink was last told.
    route: Option<MsiMessage>,
}

impl IoApic {
    /// An I/O APIC with `count` pins, 1 to [`PINS`], as after power-on: every pin masked, and the
    /// sink not told of any. A driver goes through all pins several times as it sets up, with exits
    /// for each, so that fewer are better.
    pub fn new(count: u8, sink: Box<dyn RouteSink>) -> Self {
        let pin = Pin {
            entry: Redirection::MASKED,
            line: Line::Idle,
            route: None,
        };
        Self {
            selected: 0,
            id: 0,
            count: count.clamp(1, MAX_COUNT),
            pins: [pin; PINS],
            sink,
            ignored: LogLimit::new(),
        }
    }

    /// Sets the wire of a pin. Matters to level-triggered entries only; a pin that does not exist
    /// is ignored.
    pub fn set_line(&mut self, pin: u8, line: Line) {
        if let Some(state) = self.pins.get_mut(usize::from(pin)) {
            state.line = line;
            self.service(pin);
        }
    }

    /// A local APIC broadcast the end of interrupt `vector`: level-triggered pins that sent it may
    /// fire again, and do when their line is still asserted.
    pub fn eoi(&mut self, vector: u8) {
        for (pin, index) in self.pins.iter_mut().zip(0..) {
            if pin.entry.in_service() && pin.entry.vector() == vector {
                pin.entry.end_service();
                service(pin, index, self.sink.as_mut());
            }
        }
    }

    fn service(&mut self, index: u8) {
        if let Some(pin) = self.pins.get_mut(usize::from(index)) {
            service(pin, index, self.sink.as_mut());
        }
    }

    fn read_selected(&self) -> u32 {
        match self.selected {
            REG_ID | REG_ARBITRATION => u32::from(self.id) << ID_SHIFT,
            REG_VERSION => VERSION | u32::from(self.count.saturating_sub(1)) << LAST_PIN_SHIFT,
            register => self
                .entry_of(register)
                .and_then(|index| self.pins.get(usize::from(index)))
                .map_or(0, |pin| pin.entry.half(register)),
        }
    }

    fn write_selected(&mut self, value: u32) {
        match self.selected {
            REG_ID => {
                let [.., top] = value.to_le_bytes();
                self.id = top & ID_MASK;
            }
            // Read-only.
            REG_VERSION | REG_ARBITRATION => {}
            register => match self.entry_of(register) {
                Some(index) => self.write_entry(index, register, value),
                None => self.ignore("no such register", u64::from(register)),
            },
        }
    }

    fn write_entry(&mut self, index: u8, register: u8, value: u32) {
        if let Some(pin) = self.pins.get_mut(usize::from(index)) {
            pin.entry.write_half(register, value);
            publish(pin, index, self.sink.as_mut());
            service(pin, index, self.sink.as_mut());
        }
    }

    /// Number of the pin whose redirection entry `register` is a half of, when there is one.
    fn entry_of(&self, register: u8) -> Option<u8> {
        let index = register.checked_sub(REG_REDIRECTION)? / 2;
        (index < self.count).then_some(index)
    }

    fn ignore(&self, what: &'static str, register: u64) {
        if let Some(count) = self.ignored.next() {
            tracing::warn!(count, register, "Ignored an access to the I/O APIC: {what}");
        }
    }
}

/// Tells the sink when the message of a pin is not what it was last told.
fn publish(pin: &mut Pin, index: u8, sink: &mut dyn RouteSink) {
    let route = pin.entry.message();
    if route != pin.route {
        pin.route = route;
        sink.update(index, route);
    }
}

/// Fires a level-triggered pin whose line is asserted, once until its end of interrupt.
fn service(pin: &mut Pin, index: u8, sink: &mut dyn RouteSink) {
    let wanted = pin.line == Line::Asserted
        && pin.entry.trigger() == Trigger::Level
        && !pin.entry.in_service();
    if let Some(message) = pin.entry.message().filter(|_| wanted) {
        pin.entry.begin_service();
        sink.deliver(index, message);
    }
}

impl BusDevice for IoApic {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            IOREGSEL => self.selected.into(),
            IOWIN => self.read_selected(),
            _ => 0,
        };
        data.fill(0);
        for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = value;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            // The selector is eight bits wide; drivers write it as one byte or as a word.
            (IOREGSEL, [selected, ..]) => self.selected = *selected,
            (IOWIN, &[a, b, c, d]) => self.write_selected(u32::from_le_bytes([a, b, c, d])),
            _ => self.ignore("no writable register, or not 32 bits", offset),
        }
    }
}
