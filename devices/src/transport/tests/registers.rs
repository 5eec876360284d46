use std::io;

use super::super::registers::*;
use super::super::status::{ACKNOWLEDGE, DEVICE_NEEDS_RESET, DRIVER, DRIVER_OK, FEATURES_OK};
use super::*;
use crate::bus::BusDevice;
use crate::device::Memory;
use crate::testing::Wake;
use crate::transport::{Doorbells, MmioTransport, TransportError};
use proptest::prelude::*;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

#[test]
fn fixed_registers_read_as_the_specification_says() {
    let (mut driver, _) = probe();
    let expected = [
        (MAGIC_VALUE, 0x7472_6976),
        (VERSION, 2),
        (DEVICE_ID, 1),
        (QUEUE_NUM_MAX, 256),
        (QUEUE_READY, 0),
        (INTERRUPT_STATUS, 0),
        (STATUS, 0),
        (SHM_LEN_LOW, u32::MAX),
        (SHM_LEN_HIGH, u32::MAX),
        (SHM_BASE_LOW, u32::MAX),
        (SHM_BASE_HIGH, u32::MAX),
        (QUEUE_RESET, 0),
    ];
    for (register, value) in expected {
        assert_eq!(driver.read(register), value, "{register:#x}");
    }
    assert_eq!(driver.offered(), OFFERED);
    driver.write(DEVICE_FEATURES_SEL, 2);
    assert_eq!(driver.read(DEVICE_FEATURES), 0);
    driver.write(QUEUE_SEL, 3);
    assert_eq!(driver.read(QUEUE_NUM_MAX), 0, "there is no fourth queue");
}

#[test]
fn features_are_agreed_on_only_when_offered_and_modern() {
    let cases = [
        (OFFERED, true),
        (VERSION_1, true),
        (OFFERED & !VERSION_1, false),
        (0, false),
        (OFFERED | 1, false),
        (OFFERED | 1 << 63, false),
    ];
    for (features, agreed) in cases {
        let (mut driver, _) = probe();
        assert_eq!(driver.negotiate(features), agreed, "{features:#x}");
    }
}

#[test]
fn driver_may_ask_again_after_a_refusal() {
    let (mut driver, notes) = probe();
    assert!(!driver.negotiate(0));
    driver.write(DRIVER_FEATURES, 1);
    driver.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK);
    driver.driver_ok();
    let features = VERSION_1;
    assert_eq!(
        take_events(&notes),
        [Event::Activated {
            features,
            queues: vec![]
        }]
    );
}

#[test]
fn features_written_out_of_turn_are_ignored() {
    let (mut driver, notes) = probe();
    driver.write(DRIVER_FEATURES_SEL, 0);
    driver.write(DRIVER_FEATURES, 1 << 5);
    assert!(driver.negotiate(VERSION_1));
    driver.write(DRIVER_FEATURES_SEL, 0);
    driver.write(DRIVER_FEATURES, 1 << 5);
    driver.driver_ok();
    let features = VERSION_1;
    assert_eq!(
        take_events(&notes),
        [Event::Activated {
            features,
            queues: vec![]
        }]
    );
}

#[test]
fn status_written_out_of_turn_is_ignored() {
    let (mut driver, notes) = probe();
    driver.write(STATUS, DRIVER_OK);
    driver.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_eq!(driver.status(), 0);
    driver.start();
    driver.write(STATUS, ACKNOWLEDGE);
    assert_eq!(driver.status(), 0x0f);
    driver.driver_ok();
    assert_eq!(take_events(&notes).len(), 1, "activated once");
}

#[test]
fn interrupt_status_tells_the_cause_until_acknowledged() {
    let (mut driver, notes) = probe();
    driver.start();
    let interrupt = interrupt_of(&notes);
    let generation = driver.read(CONFIG_GENERATION);
    interrupt.signal_queue(0);
    interrupt.signal_config(&SPACE);
    assert_eq!(driver.event().read().unwrap(), 2);
    assert_eq!(
        driver.read(INTERRUPT_STATUS),
        INTERRUPT_USED | INTERRUPT_CONFIG
    );
    assert_ne!(driver.read(CONFIG_GENERATION), generation);
    driver.write(INTERRUPT_ACK, INTERRUPT_USED);
    assert_eq!(driver.read(INTERRUPT_STATUS), INTERRUPT_CONFIG);
    driver.write(INTERRUPT_ACK, u32::MAX);
    assert_eq!(driver.read(INTERRUPT_STATUS), 0);
}

/// A machine that takes whatever it is asked to.
#[derive(Clone, Default)]
struct Absorbing(Arc<Mutex<Vec<u32>>>);

impl Doorbells for Absorbing {
    fn connect(&self, _queue: u16, _kick: &EventFd) -> io::Result<()> {
        Ok(())
    }

    fn absorb(&self, cause: u32) -> io::Result<()> {
        self.0.lock().unwrap().push(cause);
        Ok(())
    }
}

#[test]
fn acknowledgements_are_absorbed_once_and_their_reason_stands_while_a_device_runs() {
    let (driver, notes) = probe();
    let machine = Absorbing::default();
    let mut driver = driver.with_doorbells(Box::new(machine.clone()));
    driver.negotiate(OFFERED);
    assert!(machine.0.lock().unwrap().is_empty(), "nothing runs yet");
    for _ in 0..2 {
        driver.start();
        assert_eq!(*machine.0.lock().unwrap(), [INTERRUPT_USED]);
        interrupt_of(&notes).signal_queue(0);
        driver.write(INTERRUPT_ACK, INTERRUPT_USED);
        assert_eq!(driver.read(INTERRUPT_STATUS), INTERRUPT_USED);
        interrupt_of(&notes).signal_config(&SPACE);
        assert_eq!(
            driver.read(INTERRUPT_STATUS),
            INTERRUPT_USED | INTERRUPT_CONFIG
        );
        driver.write(INTERRUPT_ACK, INTERRUPT_USED | INTERRUPT_CONFIG);
        assert_eq!(driver.read(INTERRUPT_STATUS), INTERRUPT_USED);
        driver.transport.stop().unwrap();
        driver.transport.resume().unwrap();
        driver.write(STATUS, 0);
        assert_eq!(driver.read(INTERRUPT_STATUS), 0);
    }
}

#[test]
fn line_served_from_outside_always_tells_of_used_descriptors_until_a_reset() {
    let (mut driver, notes) = probe();
    driver.start();
    assert_eq!(driver.read(INTERRUPT_STATUS), 0);

    let line = interrupt_of(&notes).external().unwrap();
    let _ = driver.irq().read();
    line.write(1).unwrap();
    assert_eq!(driver.irq().read().unwrap(), 1, "it is the device's line");
    assert_eq!(driver.read(INTERRUPT_STATUS), INTERRUPT_USED);
    driver.write(INTERRUPT_ACK, INTERRUPT_USED | INTERRUPT_CONFIG);
    assert_eq!(driver.read(INTERRUPT_STATUS), INTERRUPT_USED);

    interrupt_of(&notes).signal_config(&SPACE);
    assert_eq!(
        driver.read(INTERRUPT_STATUS),
        INTERRUPT_USED | INTERRUPT_CONFIG
    );
    driver.write(INTERRUPT_ACK, INTERRUPT_USED | INTERRUPT_CONFIG);
    assert_eq!(driver.read(INTERRUPT_STATUS), INTERRUPT_USED);

    driver.transport.stop().unwrap();
    driver.transport.resume().unwrap();
    assert_eq!(
        driver.read(INTERRUPT_STATUS) & INTERRUPT_USED,
        INTERRUPT_USED,
        "a pause is no reset"
    );
    driver.write(STATUS, 0);
    assert_eq!(driver.read(INTERRUPT_STATUS), 0);
    driver.start();
    assert_eq!(driver.read(INTERRUPT_STATUS), 0, "nobody asked again");
}

#[test]
fn fault_of_a_running_device_sets_needs_reset_and_interrupts_once() {
    let (mut driver, notes) = probe();
    driver.start();
    interrupt_of(&notes).needs_reset();
    interrupt_of(&notes).needs_reset();
    assert_eq!(driver.status(), 0x0f | DEVICE_NEEDS_RESET);
    assert_eq!(driver.read(INTERRUPT_STATUS), INTERRUPT_CONFIG);
    assert_eq!(driver.event().read().unwrap(), 1);
    driver.write(STATUS, 0x0f);
    assert_eq!(
        driver.status(),
        0x0f | DEVICE_NEEDS_RESET,
        "only a reset clears it"
    );
    driver.start();
    assert_eq!(driver.status(), 0x0f);
}

#[test]
fn reset_stops_the_device_and_restores_every_register() {
    let (mut driver, notes) = probe();
    driver.start();
    interrupt_of(&notes).signal_queue(0);
    driver.write(QUEUE_NOTIFY, 1);
    driver.write(QUEUE_SEL, 2);
    take_events(&notes);
    driver.write(STATUS, 0);
    assert_eq!(take_events(&notes), [Event::Stopped]);
    for register in [STATUS, INTERRUPT_STATUS, QUEUE_READY] {
        assert_eq!(driver.read(register), 0, "{register:#x}");
    }
    assert_eq!(driver.read(QUEUE_NUM_MAX), 256, "queue 0 is selected");
    for (queue, kick) in driver.transport.queue_kicks() {
        assert!(kick.read().is_err(), "queue {queue} has no kick left");
    }
    driver.write(STATUS, 0);
    assert_eq!(take_events(&notes), [], "nothing to stop");
    driver.start();
    assert_eq!(take_events(&notes).len(), 1);
}

#[test]
fn refused_activation_sets_needs_reset_and_a_reset_recovers() {
    let (mut driver, notes) = probe();
    notes.lock().unwrap().refuse = true;
    assert!(driver.negotiate(OFFERED));
    assert_eq!(driver.driver_ok(), 0x0f | DEVICE_NEEDS_RESET);
    assert_eq!(driver.read(INTERRUPT_STATUS), INTERRUPT_CONFIG);
    assert_eq!(take_events(&notes), [Event::Refused]);
    notes.lock().unwrap().refuse = false;
    driver.start();
    assert_eq!(driver.status(), 0x0f);
}

#[test]
fn configuration_space_takes_any_width() {
    let (mut driver, notes) = probe();
    for width in [1, 2, 4, 8] {
        let mut data = vec![0xff; width];
        driver.transport.read(CONFIG, &mut data);
        let expected: Vec<u8> = (1u8..).take(width).collect();
        assert_eq!(data, expected);
    }
    let mut beyond = [0xff; 8];
    driver.transport.read(CONFIG + 6, &mut beyond);
    assert_eq!(beyond, [7, 8, 0, 0, 0, 0, 0, 0]);

    driver.transport.write(CONFIG, &[1]);
    assert_eq!(take_events(&notes), [], "before DRIVER");
    driver.negotiate(VERSION_1);
    driver.transport.write(CONFIG + 3, &[1, 2]);
    assert_eq!(
        take_events(&notes),
        [Event::Config {
            offset: 3,
            data: vec![1, 2]
        }]
    );
}

#[test]
fn registers_take_aligned_words_only() {
    let (mut driver, _) = probe();
    for (offset, width) in [
        (STATUS, 1),
        (STATUS, 2),
        (STATUS, 8),
        (STATUS + 1, 4),
        (STATUS - 1, 4),
    ] {
        driver.transport.write(offset, &vec![1; width]);
        assert_eq!(driver.status(), 0, "write of {width} at {offset:#x}");
    }
    for (offset, width) in [
        (MAGIC_VALUE, 1),
        (MAGIC_VALUE, 2),
        (MAGIC_VALUE, 8),
        (MAGIC_VALUE + 2, 4),
    ] {
        let mut data = vec![0xff; width];
        driver.transport.read(offset, &mut data);
        assert_eq!(data, vec![0; width], "read of {width} at {offset:#x}");
    }
}

#[test]
fn region_of_shared_memory_is_shown_while_it_is_selected() {
    let (mut driver, _) = probe();
    let registers = [SHM_LEN_LOW, SHM_LEN_HIGH, SHM_BASE_LOW, SHM_BASE_HIGH];
    for (selected, expected) in [
        (1, [0x20_0000, 2, 0x4000_0000, 5]),
        (0, [u32::MAX; 4]),
        (257, [u32::MAX; 4]),
        (u32::MAX, [u32::MAX; 4]),
        (1, [0x20_0000, 2, 0x4000_0000, 5]),
    ] {
        driver.write(SHM_SEL, selected);
        assert_eq!(
            registers.map(|register| driver.read(register)),
            expected,
            "{selected}"
        );
    }
    driver.write(STATUS, 0);
    let after_reset = registers.map(|register| driver.read(register));
    assert_eq!(after_reset, [u32::MAX; 4], "the selection is gone");
}

#[test]
fn device_with_a_bad_specification_is_refused() {
    let refused = |features, queue_sizes| {
        let device = Probe {
            spec: DeviceSpec {
                kind: DeviceKind::Blk,
                features,
                queue_sizes,
                shared_memory: None,
            },
            notes: Arc::default(),
            queues: None,
        };
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        MmioTransport::new(Box::new(device), Memory::default(), irq).err()
    };
    let old = refused(EVENT_IDX, vec![16]);
    assert!(matches!(
        old,
        Some(TransportError::NotModern {
            features: EVENT_IDX
        })
    ));
    for size in [0, 3, 40_000] {
        let odd = refused(VERSION_1, vec![16, size]);
        assert!(
            matches!(odd, Some(TransportError::QueueSize { queue: 1, .. })),
            "{size}"
        );
    }
    let many = refused(VERSION_1, vec![16; 65]);
    assert!(matches!(
        many,
        Some(TransportError::TooManyQueues { count: 65 })
    ));
}

proptest! {
    #[test]
    fn any_register_access_leaves_a_device_that_a_reset_recovers(garbage in prop::collection::vec(any::<u8>(), 0..1024)) {
        let (mut driver, notes) = probe();
        crate::testing::fuzz::access_registers(&mut driver, &garbage);
        take_events(&notes);
        driver.start();
        prop_assert_eq!(driver.status(), 0x0f);
    }
}
