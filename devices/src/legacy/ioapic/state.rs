//! The saved state of the I/O APIC.

use serde::{Deserialize, Serialize};

use super::redirection::Redirection;
use super::{ID_MASK, IoApic, Line, PINS, publish};
use crate::state::StateError;

/// Version of the layout of [`IoApicState`].
pub const IOAPIC_STATE_VERSION: u16 = 1;

/// Registers and lines. Untrusted when it is read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoApicState {
    /// The selected register.
    pub selected: u8,
    /// The identifier, 0 to 15.
    pub id: u8,
    /// Redirection entries by pin, remote IRR included.
    pub entries: [u64; PINS],
    /// Bit n: the line of pin n is asserted.
    pub lines: u32,
}

impl IoApic {
    /// The state of the registers and lines.
    pub fn save(&self) -> IoApicState {
        let asserted = (0..)
            .zip(&self.pins)
            .filter(|(_, pin)| pin.line == Line::Asserted);
        IoApicState {
            selected: self.selected,
            id: self.id,
            entries: self.pins.map(|pin| pin.entry.bits()),
            lines: asserted.fold(0, |lines, (index, _): (u32, _)| lines | 1 << index),
        }
    }

    /// Takes over a saved state, and tells the sink of every pin whose message changes by it.
    ///
    /// # Errors
    /// When a field holds bits that do not exist, or a pin is used that does not. Nothing has changed then.
    pub fn restore(&mut self, state: &IoApicState) -> Result<(), StateError> {
        let invalid = |field| StateError::Invalid {
            kind: "ioapic",
            field,
        };
        if state.id & !ID_MASK != 0 {
            return Err(invalid("id"));
        }
        if state.lines >> PINS != 0 {
            return Err(invalid("lines"));
        }
        let mut pins = self.pins;
        for ((pin, &bits), index) in pins.iter_mut().zip(&state.entries).zip(0u32..) {
            pin.entry = Redirection::from_bits(bits).ok_or_else(|| invalid("entries"))?;
            if index >= self.count.into() && pin.entry != Redirection::MASKED {
                return Err(invalid("entries"));
            }
            pin.line = if state.lines >> index & 1 == 0 {
                Line::Idle
            } else {
                Line::Asserted
            };
        }
        self.selected = state.selected;
        self.id = state.id;
        self.pins = pins;
        for (pin, index) in self.pins.iter_mut().zip(0..) {
            publish(pin, index, self.sink.as_mut());
        }
        Ok(())
    }
}
