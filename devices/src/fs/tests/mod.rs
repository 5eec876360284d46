//! The share between a driver and backends that break down on demand.

mod device;
mod exits;
mod saving;

use proptest::prelude::{any, prop, proptest};

use super::*;
use crate::device::DeviceId;
use crate::registry::Position;
use crate::testing::backend::Backends;
use crate::testing::{MmioDriver, Part, QueueDriver, fuzz, guest_memory};

/// Length of a request that is nothing but a header.
const REQUEST_BYTES: usize = 40;

fn config(on_exit: OnExit) -> FsConfig {
    FsConfig {
        id: DeviceId::new("fs0"),
        position: Position(0),
        tag: "ro-store".to_owned(),
        queues: 2,
        window: None,
        on_exit,
    }
}

fn fs(on_exit: OnExit) -> (MmioDriver, Backends) {
    let backends = Backends::new();
    let device = Fs::build(&config(on_exit), Box::new(backends.clone()), None).unwrap();
    (MmioDriver::new(Box::new(device), &guest_memory()), backends)
}

/// Adds a request with a number of its own, and room for an answer of 64 bytes.
fn request(queue: &mut QueueDriver, unique: u64) -> u16 {
    queue.add(&[Part::Readable(&header(unique)), Part::Writable(64)])
}

/// Has a request served on each queue, so that the backend is known to be at work.
fn settle(driver: &mut MmioDriver) -> Vec<QueueDriver> {
    let mut queues = driver.start();
    for queue in &mut queues {
        let head = request(queue, 7);
        driver.notify(queue);
        assert!(queue.wait_used(driver).is_some());
        assert_eq!(answer(queue, head), (0, 7));
    }
    queues
}

/// `fuse_in_header`.
fn header(unique: u64) -> [u8; REQUEST_BYTES] {
    let mut header = [0; REQUEST_BYTES];
    header[..4].copy_from_slice(&40u32.to_le_bytes());
    header[8..16].copy_from_slice(&unique.to_le_bytes());
    header
}

/// Error and number of the answer to the request at `head`.
fn answer(queue: &QueueDriver, head: u16) -> (i32, u64) {
    let bytes = queue.bytes(head, 1);
    assert_eq!(bytes[..4], 16u32.to_le_bytes(), "length of the answer");
    let error = i32::from_le_bytes(bytes[4..8].try_into().unwrap());
    let unique = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
    (error, unique)
}

proptest! {
    #[test]
    fn any_ring_is_refused_or_a_fault(input in prop::collection::vec(any::<u8>(), 0..2048)) {
        fuzz::fs_refusals(&input);
    }
}
