use super::super::{BURST_FRAMES, Burst};
use super::*;
use crate::fault::QueueFault;
use crate::testing::{Part, guest_memory};

#[test]
fn frame_fills_one_buffer_and_counts_it() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    let head = driver.add(&[Part::Writable(2048)]);
    let sent = frame(1, 100);
    host.send(&sent).unwrap();

    assert_eq!(
        rx(&memory, &driver, Buffers::Merged).process(&tap).unwrap(),
        Burst::Blocked
    );

    let used = driver.take_used().unwrap();
    assert_eq!((used.head, used.written), (head, 100));
    assert_eq!(driver.bytes(head, 0)[..100], delivered(&sent, 1));
    assert_eq!(
        driver.bytes(head, 0)[100..],
        [0xaa; 1948],
        "nothing is written behind the frame"
    );
}

#[test]
fn frame_is_merged_across_many_small_buffers() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 256);
    for _ in 0..128 {
        driver.add(&[Part::Writable(100)]);
    }
    let sent = frame(2, 9001);
    host.send(&sent).unwrap();

    rx(&memory, &driver, Buffers::Merged).process(&tap).unwrap();

    assert_eq!(driver.device_used_idx(), 91);
    assert_eq!(used_bytes(&mut driver, 1), delivered(&sent, 91));
}

#[test]
fn longest_frame_is_merged() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 256);
    for _ in 0..64 {
        driver.add(&[Part::Writable(1536)]);
    }
    let sent = frame(3, LARGEST_FRAME_BYTES);
    host.send(&sent).unwrap();

    rx(&memory, &driver, Buffers::Merged).process(&tap).unwrap();

    assert_eq!(used_bytes(&mut driver, 1), delivered(&sent, 43));
}

#[test]
fn buffer_count_is_written_into_a_split_header() {
    for first in 1..12 {
        let (tap, host) = wire();
        let memory = guest_memory();
        let mut driver = QueueDriver::new(&memory, 0, 16);
        driver.add(&[Part::Writable(first), Part::Writable(12 - first)]);
        driver.add(&[Part::Writable(50), Part::Writable(50)]);
        let sent = frame(4, 70);
        host.send(&sent).unwrap();

        rx(&memory, &driver, Buffers::Merged).process(&tap).unwrap();

        assert_eq!(
            used_bytes(&mut driver, 2),
            delivered(&sent, 2),
            "split after {first}"
        );
    }
}

#[test]
fn single_buffer_mode_counts_one_buffer() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    driver.add(&[Part::Writable(12), Part::Writable(1514)]);
    driver.add(&[Part::Writable(12), Part::Writable(1514)]);
    let sent = frame(5, 1526);
    host.send(&sent).unwrap();

    rx(&memory, &driver, Buffers::Single).process(&tap).unwrap();

    assert_eq!(used_bytes(&mut driver, 2), delivered(&sent, 1));
}

#[test]
fn frame_too_long_for_a_single_buffer_is_dropped_and_the_buffer_kept() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    driver.add(&[Part::Writable(100)]);
    driver.add(&[Part::Writable(100)]);
    host.send(&frame(6, 101)).unwrap();
    let fits = frame(7, 100);
    host.send(&fits).unwrap();

    rx(&memory, &driver, Buffers::Single).process(&tap).unwrap();

    assert_eq!(driver.device_used_idx(), 1);
    assert_eq!(used_bytes(&mut driver, 1), delivered(&fits, 1));
}

#[test]
fn frames_wait_in_the_tap_until_there_are_buffers() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    let mut rx = rx(&memory, &driver, Buffers::Merged);
    let sent = [frame(8, 300), frame(9, 400)];
    for frame in &sent {
        host.send(frame).unwrap();
    }

    assert_eq!(rx.process(&tap).unwrap(), Burst::Blocked);
    assert_eq!(driver.device_used_idx(), 0);
    driver.add(&[Part::Writable(512)]);
    driver.add(&[Part::Writable(512)]);
    rx.process(&tap).unwrap();

    let expected = [delivered(&sent[0], 1), delivered(&sent[1], 1)].concat();
    assert_eq!(used_bytes(&mut driver, 1), expected);
}

#[test]
fn long_frame_waits_while_the_driver_is_refilling() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 256);
    let mut rx = rx(&memory, &driver, Buffers::Merged);
    for _ in 0..50 {
        driver.add(&[Part::Writable(1536)]);
    }
    let sent = [frame(10, LARGEST_FRAME_BYTES), frame(11, 20_000)];
    for frame in &sent {
        host.send(frame).unwrap();
    }

    assert_eq!(
        rx.process(&tap).unwrap(),
        Burst::Blocked,
        "7 of 50 buffers are left"
    );
    assert_eq!(used_bytes(&mut driver, 1), delivered(&sent[0], 43));
    for _ in 0..43 {
        driver.add(&[Part::Writable(1536)]);
    }
    rx.process(&tap).unwrap();

    assert_eq!(used_bytes(&mut driver, 1), delivered(&sent[1], 14));
}

#[test]
fn small_frames_use_the_last_buffers() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 64);
    let mut rx = rx(&memory, &driver, Buffers::Merged);
    let sent: Vec<_> = (0..50).map(|seed| frame(seed, 60)).collect();
    for frame in &sent {
        driver.add(&[Part::Writable(1536)]);
        host.send(frame).unwrap();
    }

    rx.process(&tap).unwrap();

    let expected: Vec<u8> = sent.iter().flat_map(|frame| delivered(frame, 1)).collect();
    assert_eq!(used_bytes(&mut driver, 1), expected);
}

#[test]
fn frame_that_waits_for_buffers_is_dropped_by_a_release() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 64);
    let mut rx = rx(&memory, &driver, Buffers::Merged);
    for _ in 0..4 {
        driver.add(&[Part::Writable(1000)]);
    }
    for bytes in [3500, 1001] {
        driver.add(&[Part::Writable(500)]);
        host.send(&frame(1, bytes)).unwrap();
    }
    assert_eq!(rx.process(&tap).unwrap(), Burst::Blocked);
    assert_eq!(driver.device_used_idx(), 4);

    rx.release();
    assert_eq!(rx.queue().queue.state().next_avail, 4);
    let next = frame(2, 800);
    host.send(&next).unwrap();
    rx.process(&tap).unwrap();

    used_bytes(&mut driver, 1);
    assert_eq!(driver.device_used_idx(), 6);
}

#[test]
fn driver_with_few_buffers_gets_what_fits() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 4);
    let mut rx = rx(&memory, &driver, Buffers::Merged);
    for _ in 0..2 {
        driver.add(&[Part::Writable(2048)]);
    }
    for round in 0..10 {
        let (long, short) = (frame(round, 9000), frame(round, 1500));
        host.send(&long).unwrap();
        host.send(&short).unwrap();
        driver.add(&[Part::Writable(2048)]);

        rx.process(&tap).unwrap();

        assert_eq!(
            used_bytes(&mut driver, 1),
            delivered(&short, 1),
            "round {round}"
        );
    }
}

#[test]
fn flood_before_there_are_buffers_loses_nothing() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 8);
    let mut rx = rx(&memory, &driver, Buffers::Merged);
    let sent: Vec<_> = (0..=255)
        .map(|seed| frame(seed, 300))
        .take_while(|frame| host.send(frame).is_ok())
        .collect();
    assert!(
        sent.len() > 8,
        "the wire holds too little to flood anything"
    );
    assert_eq!(rx.process(&tap).unwrap(), Burst::Blocked);

    let mut received = Vec::new();
    while received.len() < 300 * sent.len() {
        for _ in 0..8 {
            driver.add(&[Part::Writable(300)]);
        }
        assert_ne!(rx.process(&tap).unwrap(), Burst::More);
        let got = used_bytes(&mut driver, 1);
        assert!(!got.is_empty(), "stuck after {} bytes", received.len());
        received.extend(got);
    }

    let expected: Vec<u8> = sent.iter().flat_map(|frame| delivered(frame, 1)).collect();
    assert_eq!(received, expected);
}

#[test]
fn burst_ends_although_there_is_more() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 256);
    let mut rx = rx(&memory, &driver, Buffers::Merged);
    for _ in 0..200 {
        driver.add(&[Part::Writable(1536)]);
    }
    for _ in 0..=BURST_FRAMES {
        host.send(&frame(0, 60)).unwrap();
    }

    assert_eq!(rx.process(&tap).unwrap(), Burst::More);
    assert_eq!(rx.process(&tap).unwrap(), Burst::Idle);

    assert_eq!(usize::from(driver.device_used_idx()), BURST_FRAMES + 1);
}

#[test]
fn released_buffers_are_used_again_in_order() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    let heads: Vec<u16> = (0..3).map(|_| driver.add(&[Part::Writable(200)])).collect();
    let mut rx = rx(&memory, &driver, Buffers::Merged);
    assert_eq!(rx.process(&tap).unwrap(), Burst::Idle);

    rx.release();

    assert_eq!(rx.queue().queue.state().next_avail, 0);
    let sent = frame(12, 500);
    host.send(&sent).unwrap();
    rx.process(&tap).unwrap();
    let used: Vec<u16> = std::iter::from_fn(|| driver.take_used())
        .map(|used| used.head)
        .collect();
    assert_eq!(used, heads);
}

#[test]
fn readable_buffer_is_a_fault() {
    let (tap, _host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    driver.add(&[Part::Writable(100), Part::Readable(&[0; 100])]);
    let fault = rx(&memory, &driver, Buffers::Merged)
        .process(&tap)
        .unwrap_err();
    assert!(matches!(fault, QueueFault::Malformed { queue: 0, .. }));
}

#[test]
fn buffer_shorter_than_header_is_a_fault() {
    let (tap, _host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    driver.add(&[Part::Writable(11)]);
    let fault = rx(&memory, &driver, Buffers::Merged)
        .process(&tap)
        .unwrap_err();
    assert!(matches!(fault, QueueFault::Malformed { queue: 0, .. }));
}

#[test]
fn buffer_outside_memory_is_a_fault_and_no_frame_is_lost() {
    let (tap, host) = wire();
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    host.send(&frame(0, 100)).unwrap();
    driver.add(&[Part::WritableAt(1 << 40, 1536)]);
    let fault = rx(&memory, &driver, Buffers::Merged)
        .process(&tap)
        .unwrap_err();
    assert!(matches!(fault, QueueFault::Memory { queue: 0, .. }));

    let mut driver = QueueDriver::new(&memory, 0, 16);
    driver.add(&[Part::Writable(1536)]);
    rx(&memory, &driver, Buffers::Merged).process(&tap).unwrap();
    assert_eq!(driver.device_used_idx(), 1);
}
