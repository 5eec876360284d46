use std::io;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use virtio_queue::QueueT;
use vmm_sys_util::eventfd::EventFd;

use super::super::Doorbells;
use super::super::registers::*;
use super::super::status::DEVICE_NEEDS_RESET;
use super::*;
use crate::testing::{GUEST_MEMORY_BYTES, Wake};

#[test]
fn only_enabled_queues_reach_the_device() {
    let (mut driver, notes) = probe();
    driver.negotiate(OFFERED);
    driver.add_queue(0, 256);
    driver.add_queue(2, 256);
    driver.driver_ok();
    let activated = Event::Activated {
        features: OFFERED,
        queues: vec![0, 2],
    };
    assert_eq!(take_events(&notes), [activated]);
}

#[test]
fn driver_may_take_a_queue_back_before_it_starts() {
    let (mut driver, notes) = probe();
    driver.negotiate(OFFERED);
    driver.add_queue(0, 256);
    let second = driver.add_queue(1, 256);
    driver.write(QUEUE_READY, 0);
    assert_eq!(driver.read(QUEUE_READY), 0);
    driver.configure_queue(&second);
    driver.write(QUEUE_SEL, 0);
    driver.write(QUEUE_READY, 0);
    driver.driver_ok();
    let activated = Event::Activated {
        features: OFFERED,
        queues: vec![1],
    };
    assert_eq!(take_events(&notes), [activated]);
}

#[test]
fn queues_that_can_not_be_used_set_needs_reset() {
    let low = |address: u64| u32::try_from(address).unwrap();
    let end = low(GUEST_MEMORY_BYTES);
    let cases = [
        (QUEUE_NUM, 0, "no size"),
        (QUEUE_NUM, 24, "size not a power of two"),
        (QUEUE_NUM, 512, "size beyond the largest"),
        (QUEUE_NUM, 0x1_0010, "size beyond 16 bits"),
        (QUEUE_DESC_LOW, 0, "no table"),
        (QUEUE_DESC_LOW, 0x1_0008, "misaligned table"),
        (QUEUE_DESC_LOW, end - 16, "table across the end of memory"),
        (QUEUE_DESC_HIGH, 1, "table above memory"),
        (
            QUEUE_DESC_HIGH,
            u32::MAX,
            "table at the end of the address space",
        ),
        (QUEUE_DRIVER_LOW, 0, "no available ring"),
        (QUEUE_DRIVER_LOW, 0x1_0001, "misaligned available ring"),
        (
            QUEUE_DRIVER_LOW,
            end - 2,
            "available ring across the end of memory",
        ),
        (QUEUE_DRIVER_HIGH, 1, "available ring above memory"),
        (QUEUE_DEVICE_LOW, 0, "no used ring"),
        (QUEUE_DEVICE_LOW, 0x1_0002, "misaligned used ring"),
        (
            QUEUE_DEVICE_LOW,
            end - 4,
            "used ring across the end of memory",
        ),
        (QUEUE_DEVICE_HIGH, 1, "used ring above memory"),
    ];
    for (register, value, what) in cases {
        let (mut driver, notes) = probe();
        driver.negotiate(OFFERED);
        let queue = driver.add_queue(0, 256);
        driver.write(QUEUE_READY, 0);
        driver.write(register, value);
        driver.write(QUEUE_READY, 1);
        assert_eq!(driver.driver_ok(), 0x0f | DEVICE_NEEDS_RESET, "{what}");
        assert_eq!(driver.read(INTERRUPT_STATUS), INTERRUPT_CONFIG, "{what}");
        driver.notify(&queue);
        assert_eq!(take_events(&notes), [], "{what}");
        driver.start();
        assert_eq!(take_events(&notes).len(), 1, "{what}: a reset recovers");
    }
}

#[test]
fn rings_may_end_with_memory_and_not_beyond() {
    // Sixteen entries: 256, 38 and 134 bytes, each ring with its event field of two bytes.
    let cases = [
        ([256, 38, 136], 0, "all inside"),
        ([240, 38, 136], DEVICE_NEEDS_RESET, "last descriptor beyond"),
        ([256, 36, 136], DEVICE_NEEDS_RESET, "used_event beyond"),
        ([256, 38, 132], DEVICE_NEEDS_RESET, "avail_event beyond"),
    ];
    let end = u32::try_from(GUEST_MEMORY_BYTES).unwrap();
    for ([table, available, used], expected, what) in cases {
        let (mut driver, _) = probe();
        driver.negotiate(OFFERED);
        driver.write(QUEUE_SEL, 2);
        driver.write(QUEUE_NUM, 16);
        driver.write(QUEUE_DESC_LOW, end - table);
        driver.write(QUEUE_DRIVER_LOW, end - available);
        driver.write(QUEUE_DEVICE_LOW, end - used);
        driver.write(QUEUE_READY, 1);
        assert_eq!(driver.driver_ok(), 0x0f | expected, "{what}");
    }
}

#[test]
fn queue_configuration_out_of_turn_is_ignored() {
    let (mut driver, notes) = probe();
    driver.write(QUEUE_NUM, 16);
    driver.write(QUEUE_READY, 1);
    assert_eq!(
        driver.read(QUEUE_READY),
        0,
        "before the features are agreed on"
    );

    let queues = driver.start();
    let stomp = |driver: &mut MmioDriver| {
        driver.write(QUEUE_SEL, 0);
        for register in [
            QUEUE_NUM,
            QUEUE_DESC_LOW,
            QUEUE_DESC_HIGH,
            QUEUE_DRIVER_LOW,
            QUEUE_DEVICE_LOW,
        ] {
            driver.write(register, 0xffff_fff3);
        }
        driver.write(QUEUE_READY, 0);
        driver.read(QUEUE_READY)
    };
    assert_eq!(stomp(&mut driver), 1, "while the device runs");
    driver.transport.stop().unwrap();
    let saved = driver.transport.save().unwrap();
    assert_eq!(saved.queues[0].size, u32::from(queues[0].size()));
    assert_eq!(saved.queues[0].descriptors, queues[0].descriptor_table());
    driver.transport.resume().unwrap();
    assert_eq!(
        take_events(&notes).len(),
        3,
        "activated, stopped, activated"
    );
}

#[test]
fn ready_queue_keeps_its_configuration() {
    let (mut driver, notes) = probe();
    driver.negotiate(OFFERED);
    driver.add_queue(0, 256);
    driver.write(QUEUE_NUM, 3);
    driver.write(QUEUE_DESC_LOW, 1);
    assert_eq!(driver.driver_ok(), 0x0f);
    assert_eq!(take_events(&notes).len(), 1);
}

#[test]
fn kicks_arrive_by_register_and_start_gives_one_to_each_queue() {
    let (mut driver, _) = probe();
    let queues = driver.start();
    let kicks: Vec<_> = driver
        .transport
        .queue_kicks()
        .map(|(index, kick)| (index, kick.try_clone().unwrap()))
        .collect();
    assert_eq!(kicks.len(), 3);
    for (index, kick) in &kicks {
        assert_eq!(
            kick.read().unwrap(),
            1,
            "queue {index} was kicked at its start"
        );
    }
    driver.notify(&queues[1]);
    driver.write(QUEUE_NOTIFY, 3);
    driver.write(QUEUE_NOTIFY, u32::MAX);
    assert!(kicks[0].1.read().is_err());
    assert_eq!(kicks[1].1.read().unwrap(), 1);
}

/// Short cuts that remember who asked for one.
struct Bells {
    asked: Arc<Mutex<Vec<u16>>>,
    refuse: io::ErrorKind,
}

impl Doorbells for Bells {
    fn connect(&self, queue: u16, _kick: &EventFd) -> io::Result<()> {
        self.asked.lock().unwrap().push(queue);
        Err(self.refuse.into())
    }

    fn absorb(&self, _cause: u32) -> io::Result<()> {
        Err(self.refuse.into())
    }
}

#[test]
fn short_cut_is_asked_for_once_per_queue_in_use_and_may_be_refused() {
    let (driver, _) = probe();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let mut driver = driver.with_doorbells(Box::new(Bells {
        asked: asked.clone(),
        refuse: io::ErrorKind::StorageFull,
    }));
    driver.negotiate(OFFERED);
    let queue = driver.add_queue(1, 256);
    assert!(asked.lock().unwrap().is_empty(), "nothing is in use yet");
    driver.driver_ok();
    assert_eq!(*asked.lock().unwrap(), [1]);
    let (_, kick) = driver.transport.queue_kicks().nth(1).unwrap();
    let kick = kick.try_clone().unwrap();
    assert_eq!(kick.read().unwrap(), 1, "the kick of the start");
    driver.notify(&queue);
    assert_eq!(kick.read().unwrap(), 1, "kicks still come by the register");
    driver.write(STATUS, 0);
    driver.start();
    assert_eq!(*asked.lock().unwrap(), [1, 0, 2]);
}

#[test]
fn event_index_follows_the_features() {
    for (features, expected) in [(VERSION_1, false), (VERSION_1 | EVENT_IDX, true)] {
        let (mut driver, _) = probe();
        driver.negotiate(features);
        driver.add_queue(0, 256);
        driver.driver_ok();
        driver.transport.stop().unwrap();
        let queues = driver.transport.take_paused().unwrap();
        assert_eq!(queues[0].queue.event_idx_enabled(), expected);
    }
}

#[test]
fn resume_kicks_every_queue_and_interrupts() {
    let (mut driver, notes) = probe();
    driver.start();
    driver.transport.stop().unwrap();
    driver.transport.stop().unwrap();
    for (_, kick) in driver.transport.queue_kicks() {
        let _ = kick.read();
    }
    let _ = driver.event().read();
    driver.transport.resume().unwrap();
    driver.transport.resume().unwrap();
    for (index, kick) in driver.transport.queue_kicks() {
        assert_eq!(kick.read().unwrap(), 1, "queue {index}");
    }
    assert_eq!(driver.event().read().unwrap(), 1);
    assert_eq!(driver.read(INTERRUPT_STATUS), INTERRUPT_USED);
    let queues = vec![0, 1, 2];
    let activated = Event::Activated {
        features: OFFERED,
        queues,
    };
    assert_eq!(
        take_events(&notes),
        [activated.clone(), Event::Stopped, activated]
    );
}

#[test]
fn device_that_loses_its_queues_needs_a_reset() {
    let (mut driver, notes) = probe();
    driver.start();
    notes.lock().unwrap().lose_queues = true;
    assert!(driver.transport.stop().is_err());
    assert_eq!(driver.status(), 0x0f | DEVICE_NEEDS_RESET);
    driver.transport.resume().unwrap();
    notes.lock().unwrap().lose_queues = false;
    driver.start();
    assert_eq!(driver.status(), 0x0f);
}

#[test]
fn dropped_transport_stops_its_device() {
    let (mut driver, notes) = probe();
    driver.start();
    drop(driver);
    assert_eq!(take_events(&notes).last(), Some(&Event::Stopped));
}

proptest! {
    #[test]
    fn any_queue_registers_end_in_a_valid_queue_or_needs_reset(
        size in prop_oneof![0u32..600, any::<u32>()],
        rings in prop::array::uniform3(prop_oneof![0u64..GUEST_MEMORY_BYTES + 64, any::<u64>()]),
    ) {
        let (mut driver, notes) = probe();
        driver.negotiate(OFFERED);
        driver.write(QUEUE_NUM, size);
        for (low, address) in [QUEUE_DESC_LOW, QUEUE_DRIVER_LOW, QUEUE_DEVICE_LOW].into_iter().zip(rings) {
            driver.write(low, u32::try_from(address & 0xffff_ffff).unwrap());
            driver.write(low + 4, u32::try_from(address >> 32).unwrap());
        }
        driver.write(QUEUE_READY, 1);
        let status = driver.driver_ok();
        if status & DEVICE_NEEDS_RESET != 0 {
            prop_assert_eq!(take_events(&notes), []);
        } else {
            driver.transport.stop().unwrap();
            let queues = driver.transport.take_paused().unwrap();
            prop_assert!(queues[0].queue.is_valid(&guest_memory()));
            prop_assert_eq!(u32::from(queues[0].queue.size()), size);
        }
    }
}
