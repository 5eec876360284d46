//! The keyboard controller, for the one thing guests use it for without a keyboard: pulsing the
//! CPU's reset line. The FADT says that there is no such controller, so that nobody probes it.

use std::sync::Arc;

use super::power::PowerSink;
use crate::bus::BusDevice;

/// Number of ports from 0x60: data at offset 0, command and status at offset [`COMMAND`]. The ports
/// in between are not the controller's, and read as if nobody were there.
pub const PORTS: u64 = 5;

const DATA: u64 = 0;

/// Offset of the command (written) and status (read) port, 0x64.
pub const COMMAND: u64 = 4;

/// Pulses output line 0, the CPU's reset.
const PULSE_RESET: u8 = 0xfe;

/// The controller, with nothing attached.
pub struct I8042 {
    sink: Arc<dyn PowerSink>,
}

impl I8042 {
    /// A controller whose reset line `sink` stands for.
    pub fn new(sink: Arc<dyn PowerSink>) -> Self {
        Self { sink }
    }
}

impl BusDevice for I8042 {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(match offset {
            // Status: neither buffer is full. A guest that waits to send its reset does not wait,
            // and one that probes for an answer to its self-test finds none and gives up.
            DATA | COMMAND => 0,
            // Port 0x61 above all: a guest that waits for a timer's output there has to see it.
            _ => 0xff,
        });
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset == COMMAND && data == [PULSE_RESET] {
            self.sink.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::power::tests::Asked;
    use super::*;

    #[test]
    fn only_the_reset_pulse_resets() {
        let asked = Arc::new(Asked::default());
        let mut i8042 = I8042::new(asked.clone());
        for value in 0..=u8::MAX {
            i8042.write(0, &[value]);
            i8042.write(COMMAND, &[value]);
            let expected: &[&str] = if value == 0xfe { &["reset"] } else { &[] };
            assert_eq!(asked.take(), expected, "{value:#x}");
        }
    }

    #[test]
    fn status_never_holds_a_guest_up() {
        let mut i8042 = I8042::new(Arc::new(Asked::default()));
        let mut status = [0xff];
        i8042.read(COMMAND, &mut status);
        assert_eq!(status, [0]);
        i8042.read(1, &mut status);
        assert_eq!(status, [0xff]);
    }
}
