use proptest::prelude::{any, prop, proptest};
use virtio_queue::QueueT;

use super::*;
use crate::device::{ActivateError, DeviceId, VirtioDevice};
use crate::fault::QueueFault;
use crate::registry::Position;
use crate::state::StateError;
use crate::testing::{Descriptor, FakeInterrupt, Part, QueueDriver, activation, guest_memory};

fn rng() -> Rng {
    let config = RngConfig {
        id: DeviceId::new("rng0"),
        position: Position(0),
    };
    Rng::build(&config, None).unwrap()
}

fn requests(driver: &QueueDriver) -> Requests {
    Requests::new(driver.index(), driver.queue())
}

#[test]
fn every_buffer_of_a_chain_is_filled() {
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    let head = driver.add(&[Part::Writable(1), Part::Writable(5000), Part::Writable(64)]);
    requests(&driver).process(&memory).unwrap();
    let used = driver.take_used().unwrap();
    assert_eq!((used.head, used.written), (head, 5065));
    let bytes = driver.bytes(head, 1);
    let changed = bytes.iter().filter(|byte| **byte != 0xaa).count();
    assert!(
        changed > 4800,
        "about 20 of 5000 random bytes are 0xaa, {changed} are not"
    );
}

#[test]
fn indirect_chain_is_filled() {
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    let head = driver.add_indirect(&[Part::Writable(32), Part::Writable(32)]);
    requests(&driver).process(&memory).unwrap();
    assert_eq!(driver.take_used().unwrap().written, 64);
    assert_ne!(driver.bytes(head, 1), driver.bytes(head, 0));
}

#[test]
fn huge_request_gets_no_more_than_the_limit() {
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    let head = driver.add(&[
        Part::Writable(MAX_REQUEST_BYTES - 1),
        Part::Writable(1 << 20),
    ]);
    requests(&driver).process(&memory).unwrap();
    assert_eq!(driver.take_used().unwrap().written, MAX_REQUEST_BYTES);
    assert!(driver.bytes(head, 1)[1..].iter().all(|byte| *byte == 0xaa));
}

#[test]
fn request_without_room_is_used_with_nothing() {
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    driver.add(&[Part::WritableAt(0x40_0000, 0)]);
    requests(&driver).process(&memory).unwrap();
    assert_eq!(driver.take_used().unwrap().written, 0);
}

#[test]
fn readable_buffer_is_a_fault() {
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    driver.add(&[Part::Readable(b"x")]);
    let fault = requests(&driver).process(&memory).unwrap_err();
    assert!(
        matches!(fault, QueueFault::Malformed { queue: 0, .. }),
        "{fault:?}"
    );
}

#[test]
fn buffer_outside_memory_is_a_fault() {
    for address in [32 << 20, (32 << 20) - 1, u64::MAX - 1] {
        let memory = guest_memory();
        let mut driver = QueueDriver::new(&memory, 0, 16);
        driver.add(&[Part::WritableAt(address, 8192)]);
        let fault = requests(&driver).process(&memory).unwrap_err();
        assert!(
            matches!(
                fault,
                QueueFault::Memory { .. } | QueueFault::Malformed { .. }
            ),
            "{address:#x}: {fault:?}"
        );
    }
}

#[test]
fn looping_chain_is_a_fault() {
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    let head = driver.prepare(&[Part::Writable(1)]);
    let descriptor = Descriptor {
        address: 0x40_0000,
        length: 1,
        flags: 3,
        next: head,
    };
    driver.write_descriptor(head, descriptor);
    driver.publish(head);
    let fault = requests(&driver).process(&memory).unwrap_err();
    assert!(matches!(fault, QueueFault::Ring { .. }), "{fault:?}");
}

#[test]
fn device_serves_asks_no_more_than_needed_and_stops_where_it_is() {
    let memory = guest_memory();
    let irq = FakeInterrupt::new();
    let mut device = rng();
    let features = device.spec().features;
    let mut driver = QueueDriver::new(&memory, 0, 16);
    device
        .activate(activation(
            &memory,
            &irq,
            features,
            [driver.active_queue(features)],
        ))
        .unwrap();
    for _ in 0..100 {
        let head = driver.add(&[Part::Writable(16)]);
        driver.kick();
        assert_eq!(driver.wait_used(&irq).unwrap().head, head);
    }
    assert!(irq.queue_interrupts() <= 100);

    let mut queues = device.stop().unwrap().queues;
    let stopped = queues.pop().unwrap();
    assert_eq!(
        (stopped.queue.next_avail(), stopped.queue.next_used()),
        (100, 100)
    );
    // A request that comes while the device is stopped, without a kick, is served at the start.
    let head = driver.add(&[Part::Writable(16)]);
    device
        .activate(activation(&memory, &irq, features, [stopped]))
        .unwrap();
    assert_eq!(driver.wait_used(&irq).unwrap().head, head);
    device.stop().unwrap();
}

#[test]
fn activation_without_queue_is_refused() {
    let activated = rng().activate(activation(&guest_memory(), &FakeInterrupt::new(), 0, []));
    assert!(matches!(
        activated,
        Err(ActivateError::MissingQueues {
            enabled: 0,
            needed: 1
        })
    ));
}

#[test]
fn running_device_is_not_saved() {
    let memory = guest_memory();
    let mut device = rng();
    let driver = QueueDriver::new(&memory, 0, 16);
    device
        .activate(activation(
            &memory,
            &FakeInterrupt::new(),
            0,
            [driver.active_queue(0)],
        ))
        .unwrap();
    assert!(matches!(device.save(), Err(StateError::Active)));
    device.stop().unwrap();
    assert!(device.save().is_ok());
}

proptest! {
    #[test]
    fn any_rings_end_in_a_result(garbage in prop::collection::vec(any::<u8>(), 0..2048)) {
        crate::testing::fuzz::rng_requests(&garbage);
    }
}
