//! A driver for one virtio block device behind virtio-mmio registers (virtio 1.2 §4.2, §5.2), which
//! writes and flushes for ever.
//!
//! What it writes depends on the place alone: block `n` of 4 KiB is filled with the byte
//! `0x30 + n % 8`. So an image that was filled like that keeps its content whatever becomes of the
//! writes, and a write that went astray shows.

use core::ptr::{read_volatile, write_volatile};
use core::sync::atomic::{Ordering, fence};

/// Where slotvmm has virtio registers, one page each.
const REGISTERS: u64 = 0xd000_0000;
const POSITIONS: u64 = 32;

const MAGIC: u32 = 0x7472_6976;
const BLOCK_DEVICE: u32 = 2;
const FEATURE_FLUSH: u32 = 1 << 9;
const FEATURE_VERSION_1: u32 = 1;

/// Far above the kernel: descriptors, rings, headers, status bytes, data.
const DESCRIPTORS: u64 = 0x200_0000;
const AVAILABLE: u64 = 0x200_1000;
const USED: u64 = 0x200_2000;
const HEADERS: u64 = 0x200_3000;
const STATUSES: u64 = 0x200_4000;
const DATA: u64 = 0x201_0000;

const QUEUE_SIZE: u32 = 32;
/// Writes in flight: each its own header, status byte and data.
const WRITES: u64 = 8;
/// The request that flushes.
const FLUSH: u64 = WRITES;
const BLOCK: u64 = 4096;
/// Rounds of writes between two flushes.
const FLUSH_EVERY: u32 = 64;

/// The device, ready for requests. What changes lies in memory of its own: as fields side by side, or
/// in tables, it would be moved in SSE registers, which are not there.
pub(crate) struct Disk {
    base: u64,
}

/// Blocks of 4 KiB of the device.
const BLOCKS: u64 = 0x200_5000;
/// Requests offered so far.
const OFFERED: u64 = 0x200_5008;
/// The generator of places.
const RANDOM: u64 = 0x200_5010;
/// Rounds of writes so far.
const ROUNDS: u64 = 0x200_5018;

impl Disk {
    /// The first block device there is.
    pub(crate) fn find() -> Option<Self> {
        let mut base = REGISTERS;
        while base < REGISTERS + POSITIONS * 0x1000 {
            if get::<u32>(base) == MAGIC && get::<u32>(base + 8) == BLOCK_DEVICE {
                return Some(Self::start(base));
            }
            base += 0x1000;
        }
        None
    }

    fn start(base: u64) -> Self {
        put::<u32>(base + 0x70, 0);
        put::<u32>(base + 0x70, 1 | 2);
        accept(base, 0, FEATURE_FLUSH);
        accept(base, 1, FEATURE_VERSION_1);
        put::<u32>(base + 0x70, 1 | 2 | 8);
        put::<u32>(base + 0x30, 0);
        put::<u32>(base + 0x38, QUEUE_SIZE);
        place(base + 0x80, DESCRIPTORS);
        place(base + 0x90, AVAILABLE);
        place(base + 0xa0, USED);
        put::<u32>(base + 0x44, 1);
        put::<u32>(base + 0x70, 1 | 2 | 8 | 4);
        // Completions are looked for: no interrupts.
        put::<u16>(AVAILABLE, 1);
        let sectors =
            u64::from(get::<u32>(base + 0x100)) | u64::from(get::<u32>(base + 0x104)) << 32;
        for request in 0..=FLUSH {
            prepare(request);
        }
        put::<u64>(BLOCKS, sectors * 512 / BLOCK);
        put::<u16>(OFFERED, 0);
        put::<u64>(RANDOM, 1);
        put::<u32>(ROUNDS, 0);
        Self { base }
    }

    /// Writes some blocks, and now and then flushes; waits until that is done. False when the device
    /// says that something failed.
    pub(crate) fn round(&self) -> bool {
        let rounds = get::<u32>(ROUNDS).wrapping_add(1);
        put::<u32>(ROUNDS, rounds);
        let mut request = 0;
        while request < WRITES {
            // Knuth's MMIX generator; its high bits are the random ones.
            let random = get::<u64>(RANDOM)
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            put::<u64>(RANDOM, random);
            let block = ((random >> 33) % (get::<u64>(BLOCKS) / WRITES)) * WRITES + request;
            put::<u64>(HEADERS + request * 16 + 8, block * BLOCK / 512);
            offer(request);
            request += 1;
        }
        if rounds % FLUSH_EVERY == 0 {
            offer(FLUSH);
        }
        let offered = get::<u16>(OFFERED);
        fence(Ordering::SeqCst);
        put::<u16>(AVAILABLE + 2, offered);
        fence(Ordering::SeqCst);
        put::<u32>(self.base + 0x50, 0);
        while get::<u16>(USED + 2) != offered {}
        let mut failed = 0;
        let mut request = 0;
        while request <= FLUSH {
            failed |= get::<u8>(STATUSES + request);
            request += 1;
        }
        failed == 0
    }
}

fn accept(base: u64, word: u32, features: u32) {
    put::<u32>(base + 0x24, word);
    put::<u32>(base + 0x20, features);
}

fn place(register: u64, ring: u64) {
    put::<u32>(register, ring as u32);
    put::<u32>(register + 4, 0);
}

fn offer(request: u64) {
    let offered = get::<u16>(OFFERED);
    let place = u64::from(offered) % u64::from(QUEUE_SIZE);
    put::<u16>(AVAILABLE + 4 + place * 2, (request * 3) as u16);
    put::<u16>(OFFERED, offered.wrapping_add(1));
}

/// Writes the descriptors of a request, which stay the same, and its data.
fn prepare(request: u64) {
    let header = HEADERS + request * 16;
    let kind = if request == FLUSH { 4 } else { 1 };
    put::<u32>(header, kind);
    put::<u32>(header + 4, 0);
    put::<u64>(header + 8, 0);
    put::<u8>(STATUSES + request, 0);
    let first = request * 3;
    let status = (STATUSES + request, 1, 2, 0);
    if request == FLUSH {
        describe(first, (header, 16, 1, first + 2));
    } else {
        let data = DATA + request * BLOCK;
        let mut at = data;
        while at < data + BLOCK {
            put::<u64>(at, 0x0101_0101_0101_0101 * (0x30 + request));
            at += 8;
        }
        describe(first, (header, 16, 1, first + 1));
        describe(first + 1, (data, BLOCK as u32, 1, first + 2));
    }
    describe(first + 2, status);
}

fn describe(index: u64, (address, length, flags, next): (u64, u32, u16, u64)) {
    let at = DESCRIPTORS + index * 16;
    put::<u64>(at, address);
    put::<u32>(at + 8, length);
    put::<u16>(at + 12, flags);
    put::<u16>(at + 14, next as u16);
}

fn get<T: Copy>(address: u64) -> T {
    // SAFETY: registers and rings at addresses of this file, all mapped one to one.
    unsafe { read_volatile(address as *const T) }
}

fn put<T>(address: u64, value: T) {
    // SAFETY: registers and rings at addresses of this file, all mapped one to one.
    unsafe { write_volatile(address as *mut T, value) };
}
