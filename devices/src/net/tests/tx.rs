use std::sync::Arc;

use super::super::{BURST_FRAMES, Burst, HEADER_BYTES, LARGEST_TX_BYTES, NetCounters};
use super::*;
use crate::fault::QueueFault;
use crate::testing::{Descriptor, GUEST_MEMORY_BYTES, Part, guest_memory};

const WRITE: u16 = 2;
const NEXT: u16 = 1;

fn fault_of(parts: &[Part<'_>]) -> QueueFault {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 256);
    driver.add(parts);
    let fault = tx(&memory, &driver).process(&tap).unwrap_err();
    assert!(
        receive_all(&host).is_empty(),
        "a faulty chain must not reach the wire"
    );
    assert_eq!(driver.device_used_idx(), 0);
    fault
}

#[test]
fn frame_split_at_odd_places_arrives_whole() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 256);
    let sent = frame(1, 1500);
    let cuts = [
        &sent[..1],
        &sent[1..10],
        &[],
        &sent[10..13],
        &sent[13..1499],
        &sent[1499..],
    ];
    let head = driver.add(&cuts.map(Part::Readable));

    assert_eq!(tx(&memory, &driver).process(&tap).unwrap(), Burst::Idle);

    assert_eq!(receive_all(&host), [sent]);
    let used = driver.take_used().unwrap();
    assert_eq!((used.head, used.written), (head, 0));
}

#[test]
fn every_split_of_a_header_in_two_arrives_whole() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 64);
    let sent = frame(2, 64);
    for cut in 0..=HEADER_BYTES + 1 {
        driver.add(&[Part::Readable(&sent[..cut]), Part::Readable(&sent[cut..])]);
    }

    tx(&memory, &driver).process(&tap).unwrap();

    assert_eq!(receive_all(&host), vec![sent; HEADER_BYTES + 2]);
}

#[test]
fn indirect_chain_arrives_whole() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 16);
    let sent = frame(3, 9000);
    let parts: Vec<_> = sent.chunks(500).map(Part::Readable).collect();
    driver.add_indirect(&parts);

    tx(&memory, &driver).process(&tap).unwrap();

    assert_eq!(receive_all(&host), [sent]);
}

#[test]
fn buffer_across_two_memory_regions_arrives_whole() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 16);
    let sent = frame(4, 2000);
    let address = (16 << 20) - 700;
    vm_memory::Bytes::write_slice(&memory, &sent, vm_memory::GuestAddress(address)).unwrap();
    driver.add(&[Part::ReadableAt(address, 2000)]);

    tx(&memory, &driver).process(&tap).unwrap();

    assert_eq!(receive_all(&host), [sent]);
}

#[test]
fn longest_frame_is_sent() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 16);
    let sent = frame(5, LARGEST_TX_BYTES);
    driver.add(&[Part::Readable(&sent)]);

    tx(&memory, &driver).process(&tap).unwrap();

    assert_eq!(receive_all(&host), [sent]);
}

#[test]
fn longer_than_longest_frame_is_a_fault() {
    let fault = fault_of(&[
        Part::Readable(&frame(0, LARGEST_TX_BYTES)),
        Part::Readable(&[0]),
    ]);
    assert!(matches!(fault, QueueFault::Malformed { queue: 1, .. }));
}

#[test]
fn chain_shorter_than_header_is_a_fault() {
    let fault = fault_of(&[Part::Readable(&[0; HEADER_BYTES - 1])]);
    assert!(matches!(fault, QueueFault::Malformed { queue: 1, .. }));
}

#[test]
fn zero_length_chain_is_a_fault() {
    let fault = fault_of(&[Part::Readable(&[])]);
    assert!(matches!(fault, QueueFault::Malformed { queue: 1, .. }));
}

#[test]
fn writable_buffer_is_a_fault() {
    let fault = fault_of(&[Part::Readable(&frame(0, 100)), Part::Writable(100)]);
    assert!(matches!(fault, QueueFault::Malformed { queue: 1, .. }));
}

#[test]
fn frame_outside_memory_is_lost_and_the_next_one_is_sent() {
    for (address, bytes) in [(GUEST_MEMORY_BYTES - 100, 101), (u64::MAX - 10, 100)] {
        let (tap, host) = wire();
        let memory = guest_memory();
        let mut driver = QueueDriver::new(&memory, 1, 256);
        driver.add(&[
            Part::Readable(&frame(0, 100)),
            Part::ReadableAt(address, bytes),
        ]);
        driver.add(&[Part::Readable(&frame(0, 200))]);
        tx(&memory, &driver).process(&tap).unwrap();
        assert_eq!(driver.device_used_idx(), 2);
        assert_eq!(receive_all(&host).len(), 1, "{address:#x}");
    }
}

#[test]
fn more_buffers_than_the_queue_has_entries_is_a_fault() {
    let (tap, _host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 16);
    driver.add_indirect(&[Part::Readable(&[1]); 257]);
    let fault = tx(&memory, &driver).process(&tap).unwrap_err();
    assert!(matches!(fault, QueueFault::Malformed { queue: 1, .. }));
}

#[test]
fn looping_chain_is_a_fault() {
    let (tap, _host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 16);
    let looped = Descriptor {
        address: 0x1000,
        length: 4,
        flags: NEXT,
        next: 0,
    };
    driver.write_descriptor(0, looped);
    driver.publish(0);
    let fault = tx(&memory, &driver).process(&tap).unwrap_err();
    assert!(matches!(fault, QueueFault::Ring { queue: 1, .. }));
}

#[test]
fn head_outside_the_table_is_a_fault() {
    let (tap, _host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 16);
    driver.publish(16);
    let fault = tx(&memory, &driver).process(&tap).unwrap_err();
    assert!(matches!(fault, QueueFault::Ring { queue: 1, .. }));
}

#[test]
fn available_index_ahead_of_the_queue_is_a_fault() {
    let (tap, _host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 16);
    driver.set_avail_idx(17);
    let fault = tx(&memory, &driver).process(&tap).unwrap_err();
    assert!(matches!(fault, QueueFault::Ring { queue: 1, .. }));
}

#[test]
fn writable_head_only_chain_is_a_fault() {
    let (tap, _host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 16);
    driver.write_descriptor(
        3,
        Descriptor {
            address: 0x1000,
            length: 64,
            flags: WRITE,
            next: 0,
        },
    );
    driver.publish(3);
    let fault = tx(&memory, &driver).process(&tap).unwrap_err();
    assert!(matches!(fault, QueueFault::Malformed { queue: 1, .. }));
}

#[test]
fn full_tap_keeps_the_frame_and_its_order() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 256);
    // Large frames, so that the socket is full before the burst is.
    let sent: Vec<_> = (0..50).map(|seed| frame(seed, 16_000)).collect();
    for frame in &sent {
        driver.add(&[Part::Readable(frame)]);
    }
    let mut tx = tx(&memory, &driver);

    let mut received = Vec::new();
    let mut blocked = 0;
    while tx.process(&tap).unwrap() == Burst::Blocked {
        blocked += 1;
        received.extend(receive_all(&host));
        assert_eq!(usize::from(driver.device_used_idx()), received.len());
    }
    received.extend(receive_all(&host));

    assert!(blocked > 0, "the socket was never full");
    assert_eq!(received, sent);
    assert_eq!(driver.device_used_idx(), 50);
}

#[test]
fn frame_the_host_refuses_is_dropped_and_the_next_is_sent() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 16);
    let counters = Arc::new(NetCounters::default());
    let mut tx = Tx::new(
        Ring::new(driver.active_queue(ALL_FEATURES), memory.clone()),
        counters.clone(),
    );
    drop(host);
    let head = driver.add(&[Part::Readable(&frame(0, 100))]);

    assert_eq!(tx.process(&tap).unwrap(), Burst::Idle);

    assert_eq!(driver.take_used().unwrap().head, head);
    assert_eq!(
        (counters.read().tx_frames, counters.read().tx_dropped),
        (0, 1)
    );
}

#[test]
fn burst_ends_although_there_is_more() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 256);
    for _ in 0..=BURST_FRAMES {
        driver.add(&[Part::Readable(&frame(0, 60))]);
    }
    let mut tx = tx(&memory, &driver);

    assert_eq!(tx.process(&tap).unwrap(), Burst::More);
    assert_eq!(receive_all(&host).len(), BURST_FRAMES);
    assert_eq!(tx.process(&tap).unwrap(), Burst::Idle);
    assert_eq!(receive_all(&host).len(), 1);
}
