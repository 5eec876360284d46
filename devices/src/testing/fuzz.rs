//! Entry points of the fuzzers: the same functions run under property tests on any machine, and
//! under a coverage-guided fuzzer where there is one. They take bytes, never panic, and leave
//! nothing behind.

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vm_memory::{Bytes, GuestAddress};

use super::conformance::{Subject, start_and_stop};
use super::{FakeInterrupt, MmioDriver, QueueDriver, activation, guest_memory};
use crate::bus::BusDevice;
use crate::device::Memory;
use crate::rng::Requests;
use crate::transport::registers::{CONFIG, PAGE_BYTES};

/// Size of a fuzzed queue: small, so that garbage often points at something.
const QUEUE_SIZE: u16 = 16;

/// Where most small addresses that a fuzzer finds lead.
const BUFFERS: u64 = 0x40_0000;

/// Most rounds of queue processing in one run.
const ROUNDS: usize = 4;

/// Reads and writes registers of a device as `input` says: three bytes of head, then the data.
pub fn access_registers(driver: &mut MmioDriver, input: &[u8]) {
    let mut rest = input;
    while let [kind, low, high, tail @ ..] = rest {
        let width = [1, 2, 4, 4, 4, 4, 4, 8][usize::from(kind >> 1 & 7)].min(tail.len());
        let (data, after) = tail.split_at(width);
        let anywhere = u64::from(u16::from_le_bytes([*low, *high])) % (PAGE_BYTES + 16);
        // Most accesses go to aligned registers: there is little to find elsewhere.
        let offset = if kind & 0x80 == 0 {
            (anywhere % CONFIG) & !3
        } else {
            anywhere
        };
        if kind & 1 == 0 {
            driver.transport.write(offset, data);
        } else {
            let mut read = data.to_vec();
            driver.transport.read(offset, &mut read);
        }
        rest = after;
    }
}

/// Writes `input` over the rings and descriptors of `queue`: descriptor table, available ring and
/// the first buffers, in this order.
pub fn scribble(memory: &Memory, queue: &QueueDriver, input: &[u8]) {
    let table = 16 * usize::from(queue.size());
    let ring = 6 + 2 * usize::from(queue.size());
    let (descriptors, rest) = input.split_at(input.len().min(table));
    let (available, buffers) = rest.split_at(rest.len().min(ring));
    let areas = [
        (descriptors, queue.descriptor_table()),
        (available, queue.available_ring()),
        (buffers, BUFFERS),
    ];
    for (bytes, address) in areas {
        memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }
}

/// A whole device on garbage queues: activated with the features that the first bytes of `input`
/// pick, stopped, and brought back with fresh queues.
pub fn device(subject: &Subject, input: &[u8]) {
    let mut device = subject.build(None);
    let memory = guest_memory();
    let irq = FakeInterrupt::new();
    let (picked, input) = input.split_at_checked(8).unwrap_or((&[0xff; 8], input));
    let picked = picked
        .iter()
        .fold(0, |bits, byte| bits << 8 | u64::from(*byte));
    let features = device.spec().features & picked | 1 << VIRTIO_F_VERSION_1;
    let count = u16::try_from(device.spec().queue_sizes.len()).unwrap();
    let share = input.len() / usize::from(count);
    let queues = (0..count).map(|index| {
        let queue = QueueDriver::new(&memory, index, QUEUE_SIZE);
        scribble(
            &memory,
            &queue,
            &input[usize::from(index) * share..][..share],
        );
        queue.kick();
        queue.active_queue(features)
    });
    device
        .activate(activation(&memory, &irq, features, queues))
        .unwrap();
    assert_eq!(
        device.stop().unwrap().queues.len(),
        usize::from(count),
        "{}",
        subject.name
    );
    start_and_stop(subject, device.as_mut());
}

/// The entropy source's queue logic on a garbage queue.
pub fn rng_requests(input: &[u8]) {
    let memory = guest_memory();
    let queue = QueueDriver::new(&memory, 0, QUEUE_SIZE);
    scribble(&memory, &queue, input);
    let mut requests = Requests::new(0, queue.queue());
    for _ in 0..ROUNDS {
        if !matches!(requests.process(&memory), Ok(served) if served.again) {
            break;
        }
    }
}
