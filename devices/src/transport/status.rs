//! The device status register (virtio 1.2 §2.1, §3.1.1): which writes mean what.

/// The driver noticed the device.
pub const ACKNOWLEDGE: u32 = 1;
/// The driver knows how to drive it.
pub const DRIVER: u32 = 2;
/// The driver is set up; the device runs.
pub const DRIVER_OK: u32 = 4;
/// The features are agreed on.
pub const FEATURES_OK: u32 = 8;
/// The device cannot go on until it is reset.
pub const DEVICE_NEEDS_RESET: u32 = 0x40;
/// The driver gave up.
pub const FAILED: u32 = 0x80;

/// The order in which a driver sets bits; each stands for itself and all before it.
const LADDER: [u32; 5] = [
    0,
    ACKNOWLEDGE,
    ACKNOWLEDGE | DRIVER,
    ACKNOWLEDGE | DRIVER | FEATURES_OK,
    ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
];

/// What a write to the status register asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Back to the beginning.
    Reset,
    /// Nothing new.
    Stay,
    /// Set these bits, none of which needs a decision.
    Set(u32),
    /// Set these bits when the features are acceptable, else leave out `FEATURES_OK`.
    Negotiate(u32),
    /// Set these bits and start the device.
    Start(u32),
    /// Against the rules: ignore the write.
    Illegal,
}

/// What writing `value` means while the register holds `current`.
///
/// A driver may climb several rungs with one write, except that it has to read `FEATURES_OK` back
/// before it sets `DRIVER_OK`. It may not clear a bit, other than by a reset, nor climb after it
/// set `FAILED`.
pub fn transition(current: u32, value: u32) -> Transition {
    // DEVICE_NEEDS_RESET belongs to the device: drivers write back what they read, or do not.
    let current = current & !DEVICE_NEEDS_RESET;
    let wanted = value & !DEVICE_NEEDS_RESET;
    if value == 0 {
        return Transition::Reset;
    }
    let new = wanted & !current;
    let clears = current & !wanted != 0;
    let climbs = new & !FAILED != 0;
    if clears || !is_legal(wanted) || (climbs && current & FAILED != 0) {
        return Transition::Illegal;
    }
    match (new & FEATURES_OK != 0, new & DRIVER_OK != 0) {
        (true, true) => Transition::Illegal,
        (true, false) => Transition::Negotiate(new),
        (false, true) => Transition::Start(new),
        (false, false) if new == 0 => Transition::Stay,
        (false, false) => Transition::Set(new),
    }
}

/// Whether a register may hold `value`: a rung of the ladder, with or without `FAILED` and
/// `DEVICE_NEEDS_RESET`.
pub fn is_legal(value: u32) -> bool {
    LADDER.contains(&(value & !(FAILED | DEVICE_NEEDS_RESET)))
}

/// Whether the driver may write the features it accepts.
pub fn features_writable(status: u32) -> bool {
    status & DRIVER != 0 && status & (FEATURES_OK | FAILED) == 0
}

/// Whether the driver may configure queues.
pub fn queues_writable(status: u32) -> bool {
    status & FEATURES_OK != 0 && status & (DRIVER_OK | FAILED) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_probe_sequence_is_legal() {
        let steps = [
            (0x00, 0x00, Transition::Reset),
            (0x00, 0x01, Transition::Set(ACKNOWLEDGE)),
            (0x01, 0x03, Transition::Set(DRIVER)),
            (0x03, 0x0b, Transition::Negotiate(FEATURES_OK)),
            (0x0b, 0x0f, Transition::Start(DRIVER_OK)),
            (0x0f, 0x00, Transition::Reset),
        ];
        for (current, value, expected) in steps {
            assert_eq!(
                transition(current, value),
                expected,
                "{current:#x} -> {value:#x}"
            );
        }
    }

    #[test]
    fn transitions_out_of_turn_are_illegal() {
        let writes = [
            (0x00, 0x02, "DRIVER before ACKNOWLEDGE"),
            (0x00, 0x04, "DRIVER_OK first"),
            (0x01, 0x09, "FEATURES_OK before DRIVER"),
            (0x03, 0x07, "DRIVER_OK before FEATURES_OK"),
            (0x03, 0x0f, "FEATURES_OK not read back"),
            (0x0f, 0x0b, "clearing DRIVER_OK"),
            (0x0b, 0x03, "clearing FEATURES_OK"),
            (0x03, 0x40, "clearing everything but DEVICE_NEEDS_RESET"),
            (0x03, 0x13, "a bit that does not exist"),
            (0x03, 0x103, "a bit beyond the byte"),
            (0x83, 0x8b, "going on after FAILED"),
            (0x83, 0x03, "clearing FAILED"),
        ];
        for (current, value, what) in writes {
            assert_eq!(transition(current, value), Transition::Illegal, "{what}");
        }
    }

    #[test]
    fn failed_is_accepted_anywhere_and_needs_reset_is_never_the_drivers() {
        assert_eq!(transition(0x0f, 0x8f), Transition::Set(FAILED));
        assert_eq!(transition(0x00, 0x80), Transition::Set(FAILED));
        assert_eq!(transition(0x0b, 0x4b), Transition::Stay);
        assert_eq!(transition(0x4f, 0x0f), Transition::Stay);
        assert_eq!(transition(0x43, 0x0b), Transition::Negotiate(FEATURES_OK));
    }

    #[test]
    fn every_accepted_write_leaves_a_legal_status() {
        for current in (0..=0xff).filter(|&status| is_legal(status)) {
            for value in 0..=0x1ff {
                let after = match transition(current, value) {
                    Transition::Set(new) | Transition::Negotiate(new) | Transition::Start(new) => {
                        current | new
                    }
                    Transition::Reset => 0,
                    Transition::Stay | Transition::Illegal => current,
                };
                assert!(
                    is_legal(after),
                    "{current:#x} -> {value:#x} gave {after:#x}"
                );
            }
        }
    }
}
