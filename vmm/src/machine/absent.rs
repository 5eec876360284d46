//! Parts of a PC that this machine lacks. With ACPI the tables say so; a kernel without ACPI looks
//! for them, and gives up at once only when their ports read as they do here. Where ports read as
//! all ones, Linux polls for more than a second before it does.

use devices::bus::BusDevice;
use devices::legacy::i8042::{COMMAND, I8042};

/// Status of a keyboard controller whose output never drains, though it takes commands.
const OUTPUT_FULL: u8 = 1;

/// Ports of the clock, 0x70 and 0x71.
pub(super) struct Clock;

impl Clock {
    /// How many ports there are.
    pub(super) const PORTS: u64 = 2;
}

impl BusDevice for Clock {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        // No update in progress, which is what kernels wait for, and not a clock of 24 hours, which
        // is what Linux turns down. A clock it accepted would claim the line of the first disk.
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) {}
}

/// The keyboard controller: it resets the machine, and is not there for anything else.
pub(super) struct Keyboard(pub(super) I8042);

impl BusDevice for Keyboard {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match offset {
            // Linux empties the output first, and takes a controller that does not get empty for
            // none. The bit that a guest waits for before it resets is another.
            COMMAND => data.fill(OUTPUT_FULL),
            _ => self.0.read(offset, data),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.0.write(offset, data);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::events::{Event, event_channel};
    use crate::phases::{Phase, Phases};

    fn read(device: &mut impl BusDevice, offset: u64) -> u8 {
        let mut data = [0xaa];
        device.read(offset, &mut data);
        data[0]
    }

    #[test]
    fn keyboard_controller_looks_stuck_and_still_resets() {
        let phases = Arc::new(Phases::since(Instant::now()));
        let (events, queue) = event_channel(phases.clone()).unwrap();
        let mut keyboard = Keyboard(I8042::new(Arc::new(events)));
        assert_eq!(read(&mut keyboard, COMMAND), OUTPUT_FULL);
        assert_eq!(read(&mut keyboard, 1), 0xff);
        keyboard.write(COMMAND, &[0xfe]);
        assert!(matches!(queue.queue.try_recv(), Ok(Event::GuestReset)));
        let last = phases.stamps().last().map(|stamp| stamp.phase);
        assert_eq!(last, Some(Phase::GuestEnded));
    }

    #[test]
    fn clock_is_never_updating_and_never_changes() {
        for register in 0..=0x7f {
            Clock.write(0, &[register]);
            Clock.write(1, &[0xff]);
            assert_eq!(read(&mut Clock, 1), 0, "{register:#x}");
        }
    }
}
