use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Update(u8, Option<MsiMessage>),
    Deliver(u8, MsiMessage),
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Event>>>);

impl Recorder {
    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl RouteSink for Recorder {
    fn update(&mut self, pin: u8, message: Option<MsiMessage>) {
        self.0.lock().unwrap().push(Event::Update(pin, message));
    }

    fn deliver(&mut self, pin: u8, message: MsiMessage) {
        self.0.lock().unwrap().push(Event::Deliver(pin, message));
    }
}

fn ioapic() -> (IoApic, Recorder) {
    let recorder = Recorder::default();
    (IoApic::new(24, Box::new(recorder.clone())), recorder)
}

fn write(ioapic: &mut IoApic, register: u8, value: u32) {
    ioapic.write(IOREGSEL, &u32::from(register).to_le_bytes());
    ioapic.write(IOWIN, &value.to_le_bytes());
}

fn read(ioapic: &mut IoApic, register: u8) -> u32 {
    ioapic.write(IOREGSEL, &u32::from(register).to_le_bytes());
    let mut value = [0; 4];
    ioapic.read(IOWIN, &mut value);
    u32::from_le_bytes(value)
}

/// High half first, as Linux does.
fn program(ioapic: &mut IoApic, pin: u8, entry: u64) {
    let [a, b, c, d, e, f, g, h] = entry.to_le_bytes();
    write(ioapic, 0x11 + 2 * pin, u32::from_le_bytes([e, f, g, h]));
    write(ioapic, 0x10 + 2 * pin, u32::from_le_bytes([a, b, c, d]));
}

#[test]
fn pins_beyond_the_last_one_do_not_exist() {
    let recorder = Recorder::default();
    let mut few = IoApic::new(12, Box::new(recorder.clone()));
    assert_eq!(read(&mut few, REG_VERSION), 0x000b_0011);
    for pin in [11, 12, 23] {
        program(&mut few, pin, 0x0100_0000_0000_0931);
    }
    let told = recorder.take();
    assert!(
        matches!(told.as_slice(), [Event::Update(11, Some(_))]),
        "{told:?}"
    );
    assert_ne!(read(&mut few, 0x10 + 2 * 11), 0);
    assert_eq!(read(&mut few, 0x10 + 2 * 12), 0);

    let (mut many, _) = ioapic();
    many.restore(&few.save()).unwrap();
    assert_eq!(many.save(), few.save());
    program(&mut many, 12, 0x0100_0000_0000_0931);
    let before = few.save();
    few.restore(&many.save()).unwrap_err();
    assert_eq!(few.save(), before);
}

#[test]
fn linux_sequence_updates_each_programmed_pin_once() {
    let (mut ioapic, recorder) = ioapic();
    assert_eq!(read(&mut ioapic, REG_VERSION) & 0xff, 0x11);
    assert_eq!(read(&mut ioapic, REG_VERSION) >> 16 & 0xff, 23);
    for pin in 0..24 {
        program(&mut ioapic, pin, 0x1_0000);
    }
    assert_eq!(recorder.take(), []);

    // Edge, logical, lowest priority, vector 0x31 to logical destination 1; then a second pin.
    program(&mut ioapic, 4, 0x0100_0000_0000_0931);
    program(&mut ioapic, 5, 0x0200_0000_0000_0041);
    let serial = MsiMessage {
        address: 0xfee0_1004,
        data: 0x0131,
    };
    let first_disk = MsiMessage {
        address: 0xfee0_2000,
        data: 0x0041,
    };
    assert_eq!(
        recorder.take(),
        [
            Event::Update(4, Some(serial)),
            Event::Update(5, Some(first_disk))
        ]
    );

    program(&mut ioapic, 4, 0x0100_0000_0000_0931);
    assert_eq!(recorder.take(), [], "the same entry again is no change");
    program(&mut ioapic, 4, 0x0100_0000_0001_0931);
    assert_eq!(recorder.take(), [Event::Update(4, None)]);
}

#[test]
fn entries_read_back_without_undefined_bits() {
    let (mut ioapic, _) = ioapic();
    program(&mut ioapic, 23, u64::MAX);
    assert_eq!(
        read(&mut ioapic, 0x10 + 46),
        0x0001_afff,
        "delivery status and remote IRR are read-only"
    );
    assert_eq!(read(&mut ioapic, 0x11 + 46), 0xff00_0000);
    write(&mut ioapic, REG_ID, u32::MAX);
    assert_eq!(read(&mut ioapic, REG_ID), 0x0f00_0000);
    assert_eq!(read(&mut ioapic, REG_ARBITRATION), 0x0f00_0000);
}

#[test]
fn entries_that_make_no_interrupt_have_no_route() {
    let cases = [
        (0x0000_000f, "vector of an exception"),
        (0x0000_0730, "ExtINT"),
        (0x0000_0330, "reserved delivery mode"),
        (0x0001_0030, "masked"),
    ];
    for (entry, what) in cases {
        let (mut ioapic, recorder) = ioapic();
        program(&mut ioapic, 1, entry);
        assert_eq!(recorder.take(), [], "{what}");
    }
}

#[test]
fn level_pin_fires_once_until_eoi_and_again_while_asserted() {
    let (mut ioapic, recorder) = ioapic();
    let message = MsiMessage {
        address: 0xfee0_0000,
        data: 0xc050,
    };
    program(&mut ioapic, 9, 0x8050);
    recorder.take();

    ioapic.set_line(9, Line::Asserted);
    ioapic.set_line(9, Line::Asserted);
    assert_eq!(recorder.take(), [Event::Deliver(9, message)]);
    assert_ne!(
        read(&mut ioapic, 0x10 + 18) & 1 << 14,
        0,
        "remote IRR is set"
    );

    ioapic.eoi(0x51);
    assert_eq!(recorder.take(), [], "the end of another vector");
    ioapic.eoi(0x50);
    assert_eq!(recorder.take(), [Event::Deliver(9, message)]);
    ioapic.set_line(9, Line::Idle);
    ioapic.eoi(0x50);
    assert_eq!(recorder.take(), []);
    assert_eq!(
        read(&mut ioapic, 0x10 + 18) & 1 << 14,
        0,
        "remote IRR is clear"
    );
}

#[test]
fn level_pin_asserted_while_masked_fires_at_unmask() {
    let (mut ioapic, recorder) = ioapic();
    program(&mut ioapic, 9, 0x1_8050);
    ioapic.set_line(9, Line::Asserted);
    assert_eq!(recorder.take(), []);
    program(&mut ioapic, 9, 0x8050);
    let message = MsiMessage {
        address: 0xfee0_0000,
        data: 0xc050,
    };
    assert_eq!(
        recorder.take(),
        [Event::Update(9, Some(message)), Event::Deliver(9, message)]
    );
}

#[test]
fn switching_to_edge_clears_remote_irr() {
    let (mut ioapic, _) = ioapic();
    program(&mut ioapic, 9, 0x8050);
    ioapic.set_line(9, Line::Asserted);
    ioapic.set_line(9, Line::Idle);
    program(&mut ioapic, 9, 0x1_0050);
    program(&mut ioapic, 9, 0x8050);
    assert_eq!(read(&mut ioapic, 0x10 + 18) & 1 << 14, 0);
}

#[test]
fn edge_pin_ignores_its_line() {
    let (mut ioapic, recorder) = ioapic();
    program(&mut ioapic, 9, 0x50);
    recorder.take();
    ioapic.set_line(9, Line::Asserted);
    ioapic.set_line(24, Line::Asserted);
    assert_eq!(recorder.take(), []);
}

#[test]
fn restored_state_publishes_its_routes_and_saves_equal() {
    let (mut old, _) = ioapic();
    program(&mut old, 4, 0x0100_0000_0000_0031);
    program(&mut old, 9, 0x8050);
    old.set_line(9, Line::Asserted);
    let state = old.save();

    let (mut new, recorder) = ioapic();
    new.restore(&state).unwrap();
    assert_eq!(new.save(), state);
    let edge = MsiMessage {
        address: 0xfee0_1000,
        data: 0x31,
    };
    let level = MsiMessage {
        address: 0xfee0_0000,
        data: 0xc050,
    };
    assert_eq!(
        recorder.take(),
        [Event::Update(4, Some(edge)), Event::Update(9, Some(level))]
    );
    new.eoi(0x50);
    assert_eq!(
        recorder.take(),
        [Event::Deliver(9, level)],
        "the line was still asserted"
    );
}

#[test]
fn impossible_state_is_refused_and_changes_nothing() {
    let (mut ioapic, recorder) = ioapic();
    let good = ioapic.save();
    let mut entries = good.clone();
    entries.entries[3] = 1 << 17;
    let cases = [
        entries,
        IoApicState {
            id: 16,
            ..good.clone()
        },
        IoApicState {
            lines: 1 << 24,
            ..good.clone()
        },
    ];
    for bad in cases {
        assert!(ioapic.restore(&bad).is_err(), "{bad:?}");
        assert_eq!(ioapic.save(), good);
    }
    assert_eq!(recorder.take(), []);
}

proptest! {
    #[test]
    fn any_access_leaves_a_state_that_restores(
        accesses in prop::collection::vec((0u64..0x20, prop::collection::vec(any::<u8>(), 0..9)), 0..200),
    ) {
        let (mut ioapic, _) = ioapic();
        for (offset, data) in accesses {
            ioapic.write(offset & !0xf | offset & 3, &data);
            let mut read = data.clone();
            ioapic.read(offset, &mut read);
        }
        let state = ioapic.save();
        let (mut other, _) = self::ioapic();
        other.restore(&state).unwrap();
        prop_assert_eq!(other.save(), state);
    }
}
