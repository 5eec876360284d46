//! The guest side of a request queue: descriptors, rings and buffers in plain guest memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::device::{ActiveQueue, Memory};
use crate::interrupt::Interrupt;

pub(super) const QUEUE_SIZE: u16 = 64;
pub(super) const MEMORY_BYTES: usize = 8 << 20;
const DESCRIPTORS: u64 = 0x1000;
const AVAIL: u64 = 0x3000;
const USED: u64 = 0x5000;
/// Where buffers start.
pub(super) const BUFFERS: u64 = 0x10_0000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// Counts interrupts and remembers a reset request.
#[derive(Default)]
pub(super) struct Irq {
    signals: AtomicU32,
    config: AtomicU32,
    reset: AtomicBool,
    wake: Option<EventFd>,
}

impl Irq {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            wake: Some(EventFd::new(0).unwrap()),
            ..Self::default()
        })
    }

    pub(super) fn signals(&self) -> u32 {
        self.signals.load(Ordering::Acquire)
    }

    pub(super) fn needs_reset_seen(&self) -> bool {
        self.reset.load(Ordering::Acquire)
    }

    /// Blocks until the device interrupts or asks for a reset.
    pub(super) fn wait(&self) {
        self.wake.as_ref().unwrap().read().unwrap();
    }
}

impl Interrupt for Irq {
    fn signal_queue(&self, queue: u16) {
        assert_eq!(queue, 0);
        self.signals.fetch_add(1, Ordering::AcqRel);
        self.wake.as_ref().unwrap().write(1).unwrap();
    }

    fn signal_config(&self) {
        self.config.fetch_add(1, Ordering::AcqRel);
    }

    fn needs_reset(&self) {
        self.reset.store(true, Ordering::Release);
        self.wake.as_ref().unwrap().write(1).unwrap();
    }
}

/// One descriptor to lay down: address, length, and whether the device writes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buffer {
    pub(super) addr: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
}

pub(super) fn readable(addr: u64, len: u32) -> Buffer {
    Buffer {
        addr,
        len,
        flags: 0,
    }
}

pub(super) fn writable(addr: u64, len: u32) -> Buffer {
    Buffer {
        addr,
        len,
        flags: WRITE,
    }
}

/// The driver. It never frees descriptors by itself: tests say which ones they use.
pub(super) struct Guest {
    pub(super) memory: Memory,
    pub(super) kick: EventFd,
    avail: u16,
    used: u16,
}

impl Guest {
    pub(super) fn new() -> Self {
        Self {
            memory: Memory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap(),
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            avail: 0,
            used: 0,
        }
    }

    /// The queue as a transport would hand it over.
    pub(super) fn queue(&self) -> ActiveQueue {
        let mut queue = Queue::new(QUEUE_SIZE).unwrap();
        queue
            .try_set_desc_table_address(GuestAddress(DESCRIPTORS))
            .unwrap();
        queue
            .try_set_avail_ring_address(GuestAddress(AVAIL))
            .unwrap();
        queue.try_set_used_ring_address(GuestAddress(USED)).unwrap();
        queue.set_ready(true);
        ActiveQueue {
            index: 0,
            queue,
            kick: self.kick.try_clone().unwrap(),
        }
    }

    /// Writes a chain into the table from descriptor `head` on.
    pub(super) fn lay(&self, head: u16, chain: &[Buffer]) {
        let last = chain.len() - 1;
        for (i, buffer) in chain.iter().enumerate() {
            let index = head + u16::try_from(i).unwrap();
            let next = if i < last { NEXT } else { 0 };
            self.descriptor(index, *buffer, buffer.flags | next, index + 1);
        }
    }

    pub(super) fn descriptor(&self, index: u16, buffer: Buffer, flags: u16, next: u16) {
        let at = GuestAddress(DESCRIPTORS + u64::from(index) * 16);
        self.memory
            .write_obj(descriptor_bytes(buffer, flags, next), at)
            .unwrap();
    }

    /// Writes an indirect table to `table`, and one descriptor that points to it.
    pub(super) fn lay_indirect(&self, head: u16, table: u64, chain: &[Buffer]) {
        let last = chain.len() - 1;
        for (i, buffer) in chain.iter().enumerate() {
            let next = if i < last { NEXT } else { 0 };
            let bytes =
                descriptor_bytes(*buffer, buffer.flags | next, u16::try_from(i).unwrap() + 1);
            self.memory
                .write_obj(bytes, GuestAddress(table + i as u64 * 16))
                .unwrap();
        }
        let len = u32::try_from(chain.len() * 16).unwrap();
        self.descriptor(head, readable(table, len), INDIRECT, 0);
    }

    /// Makes a head available, without a kick.
    pub(super) fn offer(&mut self, head: u16) {
        let slot = AVAIL + 4 + u64::from(self.avail % QUEUE_SIZE) * 2;
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.avail = self.avail.wrapping_add(1);
        self.set_avail_index(self.avail);
    }

    pub(super) fn set_avail_index(&self, index: u16) {
        self.memory
            .store(index, GuestAddress(AVAIL + 2), Ordering::Release)
            .unwrap();
    }

    pub(super) fn set_avail_flags(&self, flags: u16) {
        self.memory.write_obj(flags, GuestAddress(AVAIL)).unwrap();
    }

    /// Asks for an interrupt once the device has used up to this index (EVENT_IDX).
    pub(super) fn set_used_event(&self, index: u16) {
        let at = AVAIL + 4 + u64::from(QUEUE_SIZE) * 2;
        self.memory.write_obj(index, GuestAddress(at)).unwrap();
    }

    /// What the device last asked to be kicked at (EVENT_IDX).
    pub(super) fn avail_event(&self) -> u16 {
        let at = USED + 4 + u64::from(QUEUE_SIZE) * 8;
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    /// The next used element, if there is one: head and bytes written.
    pub(super) fn pop_used(&mut self) -> Option<(u16, u32)> {
        let index: u16 = self
            .memory
            .load(GuestAddress(USED + 2), Ordering::Acquire)
            .unwrap();
        if index == self.used {
            return None;
        }
        let slot = USED + 4 + u64::from(self.used % QUEUE_SIZE) * 8;
        let element: [u32; 2] = self.memory.read_obj(GuestAddress(slot)).unwrap();
        self.used = self.used.wrapping_add(1);
        Some((u16::try_from(element[0]).unwrap(), element[1]))
    }

    /// Writes a request header of this type and sector.
    pub(super) fn header(&self, at: u64, kind: u32, sector: u64) {
        self.memory.write_obj(kind, GuestAddress(at)).unwrap();
        self.memory.write_obj(0_u32, GuestAddress(at + 4)).unwrap();
        self.memory.write_obj(sector, GuestAddress(at + 8)).unwrap();
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub(super) fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(at))
            .unwrap();
        bytes
    }

    pub(super) fn byte(&self, at: u64) -> u8 {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }
}

fn descriptor_bytes(buffer: Buffer, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&buffer.addr.to_le_bytes());
    bytes[8..12].copy_from_slice(&buffer.len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}
