//! I/O ports and interrupt lines of the machine.

use devices::registry::Position;

use super::layout::{MMIO_START, MMIO_STRIDE};

/// First of the eight ports of the 16550 serial console.
pub const SERIAL: u16 = 0x3f8;
/// First port of the CMOS clock, which the machine does not have.
pub const CLOCK: u16 = 0x70;
/// First port of the keyboard controller, which serves reset only.
pub const I8042: u16 = 0x60;
/// First port of the ACPI power registers: sleep, then reset.
pub const POWER: u16 = 0x600;

/// I/O APIC pin of the serial console.
pub const SERIAL_GSI: u32 = 4;
/// I/O APIC pin of the generic event device: the power button.
pub const GED_GSI: u32 = 5;
/// I/O APIC pin of the first virtio device of [`BY_PIN`]; the others follow.
const VIRTIO_GSI: u32 = 6;
/// Positions in the order of their pins: what nearly every slot has comes first, so that the I/O
/// APIC needs few.
const BY_PIN: [u8; 16] = [0, 1, 12, 13, 8, 14, 2, 9, 15, 3, 4, 5, 6, 7, 10, 11];

/// The I/O APIC pin of the virtio device at `position`.
pub fn virtio_gsi(position: Position) -> u32 {
    let mut pins = (VIRTIO_GSI..).zip(BY_PIN);
    pins.find(|(_, at)| *at == position.0)
        .map_or(VIRTIO_GSI + u32::from(position.0), |(pin, _)| pin)
}

/// How many pins the I/O APIC of a machine with devices at `positions` needs.
pub fn pins(positions: impl Iterator<Item = Position>) -> u8 {
    let last = positions.map(virtio_gsi).fold(GED_GSI, u32::max);
    u8::try_from(last.saturating_add(1)).unwrap_or(u8::MAX)
}

/// The guest-physical address of the register page of the virtio device at `position`.
pub fn virtio_mmio(position: Position) -> u64 {
    MMIO_START + MMIO_STRIDE * u64::from(position.0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use devices::legacy::ioapic::PINS;
    use devices::registry::MAX_POSITION;

    use super::*;

    #[test]
    fn each_position_has_a_pin_of_its_own() {
        let positions = (0..=MAX_POSITION).map(Position);
        let taken: HashSet<u32> = positions.clone().map(virtio_gsi).collect();
        assert_eq!(taken.len(), usize::from(MAX_POSITION) + 1);
        assert!(!taken.contains(&SERIAL_GSI) && !taken.contains(&GED_GSI));
        assert!(usize::from(pins(positions)) <= PINS);
    }

    #[test]
    fn ordinary_slot_needs_half_of_the_pins() {
        let disks_net_rng_vsock = [0, 1, 8, 12, 13].map(Position);
        assert_eq!(pins(disks_net_rng_vsock.into_iter()), 11);
        assert_eq!(pins(std::iter::empty()), 6);
        // The machine of a kernel with sixteen devices.
        assert_eq!(pins((0..=MAX_POSITION).map(Position)), 22);
    }
}
