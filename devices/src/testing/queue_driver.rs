//! The driver's side of one virtqueue (split rings, virtio 1.2 §2.7).

use std::collections::BTreeMap;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::wake::{Wake, wait_for};
use crate::device::{ActiveQueue, Memory};

/// Rings of queue n are at n + 1 times this; it bounds the queue size to 2048.
const RINGS_STRIDE: u64 = 0x1_0000;
const MAX_SIZE: u16 = 2048;
/// Buffers of queue n are at n + 1 times this, and wrap around within this many bytes.
const BUFFERS_STRIDE: u64 = 0x40_0000;
/// Only so many queues have buffers of their own below the end of
/// [`guest_memory`](super::guest_memory).
const MAX_QUEUES: u16 = 7;

const AVAIL_IDX: u64 = 2;
const USED_IDX: u64 = 2;
const RING: u64 = 4;

const NEXT: u16 = flag(VRING_DESC_F_NEXT);
const WRITE: u16 = flag(VRING_DESC_F_WRITE);
const INDIRECT: u16 = flag(VRING_DESC_F_INDIRECT);

#[expect(clippy::cast_possible_truncation, reason = "the flags are 1, 2 and 4")]
const fn flag(bit: u32) -> u16 {
    bit as u16
}

/// One buffer of a chain.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// The device reads these bytes.
    Readable(&'a [u8]),
    /// The device may write so many bytes, 0xaa until it does.
    Writable(u32),
    /// The device reads guest memory at this address, whatever is there.
    ReadableAt(u64, u32),
    /// The device may write guest memory at this address.
    WritableAt(u64, u32),
}

/// A used element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Head of the chain, as [`QueueDriver::add`] returned it.
    pub head: u16,
    /// Bytes the device says it wrote.
    pub written: u32,
}

/// A raw descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest address of the buffer.
    pub address: u64,
    /// Its length.
    pub length: u32,
    /// `VRING_DESC_F_*`.
    pub flags: u16,
    /// The next descriptor, when the flags say so.
    pub next: u16,
}

/// A driver of one virtqueue in guest memory; frees descriptors as it takes used elements.
#[derive(Debug)]
pub struct QueueDriver {
    memory: Memory,
    index: u16,
    size: u16,
    kick: EventFd,
    free: Vec<u16>,
    chains: BTreeMap<u16, Chain>,
    avail_idx: u16,
    used_idx: u16,
    next_buffer: u64,
}

#[derive(Debug, Clone, Default)]
struct Chain {
    descriptors: Vec<u16>,
    parts: Vec<(u64, u32)>,
}

impl QueueDriver {
    /// Queue number `index` (0 to 6) with `size` descriptors (a power of two up to 2048), in
    /// [`guest_memory`](super::guest_memory). Its rings are zeroed.
    pub fn new(memory: &Memory, index: u16, size: u16) -> Self {
        assert!(index < MAX_QUEUES && size <= MAX_SIZE && size.is_power_of_two());
        let driver = Self {
            memory: memory.clone(),
            index,
            size,
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            free: (0..size).rev().collect(),
            chains: BTreeMap::new(),
            avail_idx: 0,
            used_idx: 0,
            next_buffer: 0,
        };
        let zeroes = vec![0; usize::try_from(RINGS_STRIDE).unwrap()];
        memory
            .write_slice(&zeroes, GuestAddress(driver.descriptor_table()))
            .unwrap();
        driver
    }

    /// The queue as a device gets it, its event index on when `features` have it. The kick is
    /// the one that [`kick`](Self::kick) fires.
    pub fn active_queue(&self, features: u64) -> ActiveQueue {
        let mut queue = self.queue();
        queue.set_event_idx(features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
        ActiveQueue {
            index: self.index,
            queue,
            kick: self.kick.try_clone().unwrap(),
        }
    }

    /// The device's side of the rings, from their beginning: for tests of queue logic without a
    /// device.
    pub fn queue(&self) -> Queue {
        let mut queue = Queue::new(self.size).unwrap();
        queue.set_size(self.size);
        queue
            .try_set_desc_table_address(GuestAddress(self.descriptor_table()))
            .unwrap();
        queue
            .try_set_avail_ring_address(GuestAddress(self.available_ring()))
            .unwrap();
        queue
            .try_set_used_ring_address(GuestAddress(self.used_ring()))
            .unwrap();
        queue.set_ready(true);
        queue
    }

    /// Index of the queue.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Guest address of the descriptor table.
    pub fn descriptor_table(&self) -> u64 {
        RINGS_STRIDE * (u64::from(self.index) + 1)
    }

    /// Guest address of the available ring.
    pub fn available_ring(&self) -> u64 {
        self.descriptor_table() + 16 * u64::from(self.size)
    }

    /// Guest address of the used ring.
    pub fn used_ring(&self) -> u64 {
        (self.available_ring() + 6 + 2 * u64::from(self.size)).next_multiple_of(4)
    }

    /// Makes a chain of `parts` available to the device. Returns its head.
    pub fn add(&mut self, parts: &[Part<'_>]) -> u16 {
        let head = self.prepare(parts);
        self.publish(head);
        head
    }

    /// Writes a chain of `parts` without making it available; [`publish`](Self::publish) does.
    pub fn prepare(&mut self, parts: &[Part<'_>]) -> u16 {
        let placed: Vec<_> = parts.iter().map(|part| self.place(*part)).collect();
        let descriptors: Vec<u16> = parts
            .iter()
            .map(|_| self.free.pop().expect("a free descriptor"))
            .collect();
        for (position, (&index, &(address, length, flags))) in
            descriptors.iter().zip(&placed).enumerate()
        {
            let next = descriptors.get(position + 1).copied();
            self.write_descriptor(
                index,
                Descriptor {
                    address,
                    length,
                    flags: if next.is_some() { flags | NEXT } else { flags },
                    next: next.unwrap_or(0),
                },
            );
        }
        self.remember(descriptors, &placed)
    }

    /// As [`add`](Self::add), with the chain in an indirect table.
    pub fn add_indirect(&mut self, parts: &[Part<'_>]) -> u16 {
        let placed: Vec<_> = parts.iter().map(|part| self.place(*part)).collect();
        let bytes = 16 * u32::try_from(placed.len()).unwrap();
        let table = self.allocate(bytes);
        for (index, &(address, length, flags)) in (0u16..).zip(&placed) {
            let last = usize::from(index) + 1 == placed.len();
            let descriptor = Descriptor {
                address,
                length,
                flags: if last { flags } else { flags | NEXT },
                next: if last { 0 } else { index + 1 },
            };
            self.write_raw(table + 16 * u64::from(index), descriptor);
        }
        let head = self.free.pop().expect("a free descriptor");
        let descriptor = Descriptor {
            address: table,
            length: bytes,
            flags: INDIRECT,
            next: 0,
        };
        self.write_descriptor(head, descriptor);
        self.remember(vec![head], &placed);
        self.publish(head);
        head
    }

    /// Makes the chain at `head` available, whatever is there.
    pub fn publish(&mut self, head: u16) {
        let slot = self.available_ring() + RING + 2 * u64::from(self.avail_idx % self.size);
        self.store(slot, head);
        self.set_avail_idx(self.avail_idx.wrapping_add(1));
    }

    /// Sets the index of the available ring to any value.
    pub fn set_avail_idx(&mut self, index: u16) {
        self.avail_idx = index;
        self.memory
            .store(
                index.to_le(),
                GuestAddress(self.available_ring() + AVAIL_IDX),
                Ordering::Release,
            )
            .unwrap();
    }

    /// Writes descriptor number `index` raw.
    pub fn write_descriptor(&self, index: u16, descriptor: Descriptor) {
        assert!(index < self.size);
        self.write_raw(self.descriptor_table() + 16 * u64::from(index), descriptor);
    }

    /// Kicks the device.
    pub fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    /// Takes the next used element, when there is one.
    pub fn take_used(&mut self) -> Option<Used> {
        // Ask for an interrupt at the next element before looking whether it is there already.
        let used_event = self.available_ring() + RING + 2 * u64::from(self.size);
        self.store(used_event, self.used_idx);
        fence(Ordering::SeqCst);
        if self.device_used_idx() == self.used_idx {
            return None;
        }
        let slot = self.used_ring() + RING + 8 * u64::from(self.used_idx % self.size);
        let head: u32 = self.memory.read_obj(GuestAddress(slot)).unwrap();
        let written: u32 = self.memory.read_obj(GuestAddress(slot + 4)).unwrap();
        self.used_idx = self.used_idx.wrapping_add(1);
        let head = u16::try_from(u32::from_le(head)).expect("a descriptor index");
        if let Some(chain) = self.chains.get_mut(&head) {
            self.free.append(&mut chain.descriptors);
        }
        Some(Used {
            head,
            written: u32::from_le(written),
        })
    }

    /// Waits for the next used element; `irq` fires when the device interrupts. Returns nothing
    /// when none came within ten seconds.
    pub fn wait_used(&mut self, irq: &(impl Wake + ?Sized)) -> Option<Used> {
        wait_for(irq, || self.take_used())
    }

    /// The index of the used ring, as the device last wrote it.
    pub fn device_used_idx(&self) -> u16 {
        let index = self
            .memory
            .load(GuestAddress(self.used_ring() + USED_IDX), Ordering::Acquire);
        u16::from_le(index.unwrap())
    }

    /// What is in part number `part` of the chain last added at `head`.
    pub fn bytes(&self, head: u16, part: usize) -> Vec<u8> {
        let (address, length) = self.chains.get(&head).expect("a chain")[part];
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        self.memory
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }

    /// Guest address of part number `part` of the chain last added at `head`.
    pub fn address(&self, head: u16, part: usize) -> u64 {
        self.chains.get(&head).expect("a chain")[part].0
    }

    fn place(&mut self, part: Part<'_>) -> (u64, u32, u16) {
        match part {
            Part::Readable(bytes) => {
                let length = u32::try_from(bytes.len()).unwrap();
                let address = self.allocate(length);
                self.memory
                    .write_slice(bytes, GuestAddress(address))
                    .unwrap();
                (address, length, 0)
            }
            Part::Writable(length) => {
                let address = self.allocate(length);
                let fill = vec![0xaa; usize::try_from(length).unwrap()];
                self.memory
                    .write_slice(&fill, GuestAddress(address))
                    .unwrap();
                (address, length, WRITE)
            }
            Part::ReadableAt(address, length) => (address, length, 0),
            Part::WritableAt(address, length) => (address, length, WRITE),
        }
    }

    /// Buffers are handed out round and round: tests complete old chains before new ones lap them.
    fn allocate(&mut self, length: u32) -> u64 {
        let length = u64::from(length);
        assert!(length <= BUFFERS_STRIDE);
        if self.next_buffer + length > BUFFERS_STRIDE {
            self.next_buffer = 0;
        }
        let address = BUFFERS_STRIDE * (u64::from(self.index) + 1) + self.next_buffer;
        self.next_buffer = (self.next_buffer + length).next_multiple_of(16);
        address
    }

    fn remember(&mut self, descriptors: Vec<u16>, placed: &[(u64, u32, u16)]) -> u16 {
        let head = *descriptors.first().expect("a chain has a part");
        let parts = placed
            .iter()
            .map(|&(address, length, _)| (address, length))
            .collect();
        self.chains.insert(head, Chain { descriptors, parts });
        head
    }

    fn write_raw(&self, at: u64, descriptor: Descriptor) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&descriptor.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&descriptor.length.to_le_bytes());
        bytes[12..14].copy_from_slice(&descriptor.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&descriptor.next.to_le_bytes());
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    fn store(&self, at: u64, value: u16) {
        self.memory
            .store(value.to_le(), GuestAddress(at), Ordering::Relaxed)
            .unwrap();
    }
}

impl std::ops::Index<usize> for Chain {
    type Output = (u64, u32);

    fn index(&self, part: usize) -> &Self::Output {
        &self.parts[part]
    }
}
