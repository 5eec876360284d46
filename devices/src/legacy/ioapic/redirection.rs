//! Redirection entries (82093AA §3.2.4) and the MSI messages they stand for (Intel SDM vol. 3
//! §11.11).

const VECTOR: u64 = 0xff;
const DELIVERY_SHIFT: u32 = 8;
const DELIVERY: u64 = 0b111 << DELIVERY_SHIFT;
const LOGICAL: u64 = 1 << 11;
const DELIVERY_STATUS: u64 = 1 << 12;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// Bits that exist; what the driver writes elsewhere reads as zero.
const DEFINED: u64 = 0xff00_0000_0001_ffff;
const READ_ONLY: u64 = DELIVERY_STATUS | REMOTE_IRR;
const DESTINATION_SHIFT: u32 = 56;

const MSI_BASE: u64 = 0xfee0_0000;
const MSI_DESTINATION_SHIFT: u32 = 12;
const MSI_LOGICAL: u64 = 1 << 2;
const MSI_ASSERT: u32 = 1 << 14;
const MSI_LEVEL: u32 = 1 << 15;

/// Vectors below are exceptions; no local APIC accepts them as an interrupt.
const FIRST_VECTOR: u8 = 16;

/// A message-signalled interrupt: writing `data` to `address` is the interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiMessage {
    /// Destination and its mode.
    pub address: u64,
    /// Vector, delivery mode and trigger mode.
    pub data: u32,
}

/// What makes a pin fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A rising edge, once each.
    Edge,
    /// An asserted line, again after each end of interrupt.
    Level,
}

/// One redirection entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Redirection(u64);

impl Redirection {
    /// The entry after power-on.
    pub(super) const MASKED: Self = Self(MASKED);

    /// An entry from its saved bits; nothing when bits are set that do not exist.
    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        (bits & !DEFINED == 0).then_some(Self(bits))
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    pub(super) fn vector(self) -> u8 {
        let [vector, ..] = (self.0 & VECTOR).to_le_bytes();
        vector
    }

    pub(super) fn trigger(self) -> Trigger {
        if self.0 & LEVEL == 0 {
            Trigger::Edge
        } else {
            Trigger::Level
        }
    }

    /// Whether the entry waits for the end of an interrupt it sent.
    pub(super) fn in_service(self) -> bool {
        self.0 & REMOTE_IRR != 0
    }

    pub(super) fn begin_service(&mut self) {
        self.0 |= REMOTE_IRR;
    }

    pub(super) fn end_service(&mut self) {
        self.0 &= !REMOTE_IRR;
    }

    /// The half that register number `register` shows: even low, odd high.
    pub(super) fn half(self, register: u8) -> u32 {
        let [a, b, c, d, e, f, g, h] = self.0.to_le_bytes();
        if register.is_multiple_of(2) {
            u32::from_le_bytes([a, b, c, d])
        } else {
            u32::from_le_bytes([e, f, g, h])
        }
    }

    pub(super) fn write_half(&mut self, register: u8, value: u32) {
        let low_half = u64::from(u32::MAX);
        let (writable, value) = if register.is_multiple_of(2) {
            (low_half & !READ_ONLY, u64::from(value))
        } else {
            (low_half << 32, u64::from(value) << 32)
        };
        self.0 = (self.0 & !writable | value & writable) & DEFINED;
        // Linux ends a stuck interrupt of this version of the chip by a detour over edge.
        if self.trigger() == Trigger::Edge {
            self.end_service();
        }
    }

    /// The message the pin sends; nothing when it is masked, names a vector that no local APIC
    /// accepts, or a delivery mode that is reserved or needs a PIC.
    pub(super) fn message(self) -> Option<MsiMessage> {
        const FIXED: u64 = 0;
        const LOWEST_PRIORITY: u64 = 1;
        const SMI: u64 = 2;
        const NMI: u64 = 4;
        const INIT: u64 = 5;
        let vector = self.vector();
        let has_vector = match (self.0 & DELIVERY) >> DELIVERY_SHIFT {
            FIXED | LOWEST_PRIORITY => vector >= FIRST_VECTOR,
            SMI | NMI | INIT => true,
            _ => false,
        };
        if self.0 & MASKED != 0 || !has_vector {
            return None;
        }
        let logical = if self.0 & LOGICAL == 0 {
            0
        } else {
            MSI_LOGICAL
        };
        let destination = self.0 >> DESTINATION_SHIFT;
        let [_, delivery, ..] = (self.0 & DELIVERY).to_le_bytes();
        let trigger = match self.trigger() {
            Trigger::Edge => 0,
            Trigger::Level => MSI_LEVEL | MSI_ASSERT,
        };
        Some(MsiMessage {
            address: MSI_BASE | destination << MSI_DESTINATION_SHIFT | logical,
            data: u32::from(u16::from_le_bytes([vector, delivery])) | trigger,
        })
    }
}
