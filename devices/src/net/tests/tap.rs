use std::fs::File;

use super::super::features::UdpSegments;
use super::super::tap::Attached;
use super::super::testing::{HOST_HEADER_BYTES, HostEnd, TapPair, TapPairError};
use super::super::{Burst, Offloads, TapError};
use super::*;
use crate::testing::{Part, guest_memory};

const NEEDS_CHECKSUM: u8 = 1;
const ETHERNET: usize = 14;
const IPV4: usize = 20;

/// A tap in a fresh namespace, or nothing after saying why not.
fn tap_pair() -> Option<TapPair> {
    match TapPair::new() {
        Ok(pair) => Some(pair),
        Err(TapPairError::NotPermitted(reason)) => {
            println!("skipped: no tap in a fresh network namespace: {reason}");
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// A broadcast Ethernet frame that carries an IPv4 UDP datagram, its checksum field as a sender
/// leaves it that has its card finish it: only the pseudo header is summed.
fn unfinished_udp() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9, 8, 0]);
    frame.extend([
        0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ]);
    frame.extend([0, 7, 0, 7, 0, 16, 0, 0]);
    frame.extend(*b"checksum");
    let partial = sum(&frame[ETHERNET + 12..ETHERNET + IPV4]) + 17 + 16;
    frame[ETHERNET + IPV4 + 6..][..2].copy_from_slice(&fold(partial).to_be_bytes());
    frame
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// Asks for the UDP checksum, which lies 6 bytes behind the start of the UDP header.
fn checksum_header(bytes: usize) -> Vec<u8> {
    let mut header = vec![0; bytes];
    header[0] = NEEDS_CHECKSUM;
    header[6..10].copy_from_slice(&[34, 0, 6, 0]);
    header
}

fn with_header(frame: &[u8], bytes: usize) -> Vec<u8> {
    let mut whole = checksum_header(bytes);
    whole.extend_from_slice(frame);
    whole
}

fn received_by(host: &HostEnd) -> Vec<u8> {
    let mut bytes = vec![0; 70_000];
    let length = host.receive(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

fn receive_through_card(pair: &TapPair) -> Vec<u8> {
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    driver.add(&[Part::Writable(2048)]);
    pair.host
        .send(&with_header(&unfinished_udp(), HOST_HEADER_BYTES))
        .unwrap();
    rx(&memory, &driver, Buffers::Merged)
        .process(&pair.tap)
        .unwrap();
    used_bytes(&mut driver, 1)
}

#[test]
fn frame_reaches_the_host_with_its_offload_request() {
    let Some(pair) = tap_pair() else { return };
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 16);
    let whole = with_header(&unfinished_udp(), HEADER_BYTES);
    driver.add(&[
        Part::Readable(&whole[..HEADER_BYTES]),
        Part::Readable(&whole[HEADER_BYTES..]),
    ]);

    assert_eq!(
        tx(&memory, &driver).process(&pair.tap).unwrap(),
        Burst::Idle
    );

    let received = received_by(&pair.host);
    assert_eq!(received[0], NEEDS_CHECKSUM);
    assert_eq!(received[HOST_HEADER_BYTES..], unfinished_udp());
}

#[test]
fn unfinished_frame_is_passed_on_when_the_driver_takes_it() {
    let Some(pair) = tap_pair() else { return };
    let offloads = Offloads::CHECKSUM
        .and(Offloads::TSO4)
        .and(Offloads::TSO6)
        .and(Offloads::UFO)
        .and(Offloads::ECN);
    pair.tap.set_offloads(offloads).unwrap();

    let received = receive_through_card(&pair);

    let mut expected = with_header(&unfinished_udp(), HEADER_BYTES);
    expected[10] = 1;
    assert_eq!(received, expected);
}

#[test]
fn frame_is_finished_for_a_driver_that_takes_no_unfinished_ones() {
    let Some(pair) = tap_pair() else { return };
    pair.tap
        .set_offloads(Offloads::TSO4.and(Offloads::ECN))
        .unwrap();

    let received = receive_through_card(&pair);

    assert_eq!(received[0] & NEEDS_CHECKSUM, 0);
    let udp = &received[HEADER_BYTES + ETHERNET + IPV4..];
    let pseudo = sum(&unfinished_udp()[ETHERNET + 12..ETHERNET + IPV4]) + 17 + 16;
    assert_eq!(fold(pseudo + sum(udp)), 0xffff, "the checksum is right");
}

#[test]
fn every_combination_of_offloads_is_taken_by_the_host() {
    let Some(pair) = tap_pair() else { return };
    let has_udp = pair.tap.udp_segments() == UdpSegments::Known;
    let single = [
        Offloads::CHECKSUM,
        Offloads::TSO4,
        Offloads::TSO6,
        Offloads::ECN,
        Offloads::UFO,
        Offloads::USO4,
        Offloads::USO6,
    ];
    for picked in 0..1_u32 << single.len() {
        let set = (0..single.len())
            .filter(|bit| picked & 1 << bit != 0)
            .fold(Offloads::default(), |set, bit| set.and(single[bit]));
        let udp = set.contains(Offloads::USO4.and(Offloads::USO6));
        if has_udp || !udp {
            assert!(pair.tap.set_offloads(set).is_ok(), "{set:?}");
        }
    }
}

#[test]
fn detached_queue_gets_no_frames_until_it_is_attached_again() {
    let (taps, host) = match TapPair::several(2) {
        Ok(several) => several,
        Err(TapPairError::NotPermitted(reason)) => {
            println!("skipped: no tap in a fresh network namespace: {reason}");
            return;
        }
        Err(error) => panic!("{error:?}"),
    };
    let memory = guest_memory();
    let frames = |tap: &Tap| {
        let mut driver = QueueDriver::new(&memory, 0, 256);
        for _ in 0..200 {
            driver.add(&[Part::Writable(2048)]);
        }
        let mut rx = rx(&memory, &driver, Buffers::Merged);
        while rx.process(tap).unwrap() == Burst::More {}
        rx.release();
        driver.device_used_idx()
    };
    let send = || {
        for port in 0..64 {
            let mut frame = unfinished_udp();
            // Flows differ by their source port, and spread over the queues by that.
            frame[ETHERNET + IPV4 + 1] = port;
            host.send(&with_header(&frame, HOST_HEADER_BYTES)).unwrap();
        }
    };
    taps[1].set_attached(Attached::No).unwrap();
    taps[1].set_attached(Attached::No).unwrap();
    send();
    assert_eq!((frames(&taps[0]), frames(&taps[1])), (64, 0));

    taps[1].set_attached(Attached::Yes).unwrap();
    send();
    let (first, second) = (frames(&taps[0]), frames(&taps[1]));
    assert_eq!(first + second, 64);
    assert!(second > 0, "some flow of 64 belongs to the second queue");
}

#[test]
fn only_queue_of_a_tap_cannot_be_detached() {
    let Some(pair) = tap_pair() else { return };
    assert!(pair.tap.set_attached(Attached::No).is_err());
    pair.tap.set_attached(Attached::Yes).unwrap();
}

#[test]
fn senseless_header_costs_only_its_frame() {
    let Some(pair) = tap_pair() else { return };
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 16);
    let mut senseless = with_header(&unfinished_udp(), HEADER_BYTES);
    senseless[..10].fill(0xff);
    driver.add(&[Part::Readable(&senseless)]);
    driver.add(&[Part::Readable(&senseless[..HEADER_BYTES])]);
    driver.add(&[Part::Readable(&with_header(
        &unfinished_udp(),
        HEADER_BYTES,
    ))]);

    assert_eq!(
        tx(&memory, &driver).process(&pair.tap).unwrap(),
        Burst::Idle
    );

    assert_eq!(driver.device_used_idx(), 3);
    assert_eq!(
        received_by(&pair.host)[HOST_HEADER_BYTES..],
        unfinished_udp()
    );
}

#[test]
fn file_that_is_no_tap_is_refused() {
    let refused = Tap::new(File::open("/dev/null").unwrap().into());
    assert!(matches!(refused, Err(TapError::NotTap { .. })));
}
