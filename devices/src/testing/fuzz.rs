//! Entry points of the fuzzers: the same functions run under property tests on any machine, and
//! under a coverage-guided fuzzer where there is one. They take bytes, never panic, and leave
//! nothing behind.

use vm_memory::{Bytes, GuestAddress};

use super::{MmioDriver, QueueDriver, guest_memory};
use crate::bus::BusDevice;
use crate::device::Memory;
use crate::rng::Requests;
use crate::transport::registers::{CONFIG, PAGE_BYTES};

/// Size of a fuzzed queue: small, so that garbage often points at something.
const QUEUE_SIZE: u16 = 16;

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
            anywhere % CONFIG & !3
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

/// A queue whose rings and descriptors are `input`, in fresh guest memory: descriptor table,
/// available ring and the first buffers, in this order.
pub fn garbage_queue(input: &[u8]) -> (Memory, QueueDriver) {
    let memory = guest_memory();
    let queue = QueueDriver::new(&memory, 0, QUEUE_SIZE);
    let table = 16 * usize::from(QUEUE_SIZE);
    let ring = 6 + 2 * usize::from(QUEUE_SIZE);
    let (descriptors, rest) = input.split_at(input.len().min(table));
    let (available, buffers) = rest.split_at(rest.len().min(ring));
    let areas = [
        (descriptors, queue.descriptor_table()),
        (available, queue.available_ring()),
        (buffers, 0x40_0000),
    ];
    for (bytes, address) in areas {
        memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }
    (memory, queue)
}

/// The entropy source's queue logic on a garbage queue.
pub fn rng_requests(input: &[u8]) {
    let (memory, queue) = garbage_queue(input);
    let mut requests = Requests::new(0, queue.queue());
    for _ in 0..ROUNDS {
        if !matches!(requests.process(&memory), Ok(served) if served.again) {
            break;
        }
    }
}
