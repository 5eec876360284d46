//! How the guest powers the machine off and resets it: the sleep and reset registers of
//! hardware-reduced ACPI (ACPI 6.5 §4.8.3.7, §4.8.3.6), as two ports side by side.

use std::sync::Arc;

use crate::bus::BusDevice;

/// Number of ports.
pub const PORTS: u64 = 2;

/// Offset of the sleep control and status register, one byte: the FADT names it twice.
pub const SLEEP: u64 = 0;
/// Offset of the reset register, one byte.
pub const RESET: u64 = 1;
/// What the FADT tells the guest to write into [`RESET`].
pub const RESET_VALUE: u8 = 1;
/// The sleep type that the DSDT's `_S5` names.
pub const S5_SLEEP_TYPE: u8 = 5;

const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE: u8 = 0b111 << SLEEP_TYPE_SHIFT;
const ENTER_S5: u8 = SLEEP_ENABLE | S5_SLEEP_TYPE << SLEEP_TYPE_SHIFT;

/// Who is told that the guest asked for its own end. Called on a vCPU thread: it may not block,
/// and returns to the guest, which waits.
pub trait PowerSink: Send + Sync {
    /// The guest powered off.
    fn poweroff(&self);

    /// The guest asked for a reset.
    fn reset(&self);
}

/// The two registers.
pub struct Power {
    sink: Arc<dyn PowerSink>,
}

impl Power {
    /// The registers of a machine whose end `sink` brings about.
    pub fn new(sink: Arc<dyn PowerSink>) -> Self {
        Self { sink }
    }
}

impl BusDevice for Power {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        // Sleep status without WAK_STS: the machine never woke up from sleep.
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (SLEEP, &[value]) if value & (SLEEP_ENABLE | SLEEP_TYPE) == ENTER_S5 => {
                self.sink.poweroff()
            }
            (RESET, &[RESET_VALUE]) => self.sink.reset(),
            _ => {}
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Remembers what the guest asked for.
    #[derive(Default)]
    pub(in crate::legacy) struct Asked(Mutex<Vec<&'static str>>);

    impl Asked {
        pub(in crate::legacy) fn take(&self) -> Vec<&'static str> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    impl PowerSink for Asked {
        fn poweroff(&self) {
            self.0.lock().unwrap().push("poweroff");
        }

        fn reset(&self) {
            self.0.lock().unwrap().push("reset");
        }
    }

    #[test]
    fn only_s5_with_sleep_enable_powers_off() {
        let asked = Arc::new(Asked::default());
        let mut power = Power::new(asked.clone());
        for value in 0..=u8::MAX {
            power.write(SLEEP, &[value]);
            let expected: &[&str] = if value & 0x3c == 0x34 {
                &["poweroff"]
            } else {
                &[]
            };
            assert_eq!(asked.take(), expected, "{value:#x}");
        }
    }

    #[test]
    fn only_the_reset_value_resets() {
        let asked = Arc::new(Asked::default());
        let mut power = Power::new(asked.clone());
        for value in 0..=u8::MAX {
            power.write(RESET, &[value]);
            let expected: &[&str] = if value == RESET_VALUE {
                &["reset"]
            } else {
                &[]
            };
            assert_eq!(asked.take(), expected, "{value:#x}");
        }
    }

    #[test]
    fn other_widths_and_ports_do_nothing() {
        let asked = Arc::new(Asked::default());
        let mut power = Power::new(asked.clone());
        power.write(SLEEP, &[0x34, 1]);
        power.write(RESET, &[1, 0, 0, 0]);
        power.write(7, &[0x34]);
        assert!(asked.take().is_empty());
    }
}
