//! A driver for one virtio block device behind virtio-mmio registers (virtio 1.2 §4.2, §5.2), which
//! writes and flushes for ever, and counts for how long it waits.
//!
//! What it writes depends on the place alone: block `n` of 4 KiB is filled with the byte
//! `0x30 + n % 8`. So an image that was filled like that keeps its content whatever becomes of the
//! writes, and a write that went astray shows.

use core::ptr::{read_volatile, write_volatile};
use core::sync::atomic::{Ordering, fence};

use crate::{SERIAL, digits, outb, time};

/// Where slotvmm has virtio registers, one page each.
const REGISTERS: u64 = 0xd000_0000;
/// Where QEMU's `microvm` machine has them, eight to a page.
const REGISTERS_OF_QEMU: u64 = 0xfeb0_0000;
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
/// Writes of a round, of eight blocks side by side the first ones.
const IN_FLIGHT: u64 = 0x200_5020;
/// Which blocks are written: those of the first of every so many MiB.
const SPREAD: u64 = 0x200_5028;
/// The longest time between two readings of the clock.
const LONGEST_GAP: u64 = 0x200_5030;
/// The longest round.
const LONGEST_ROUND: u64 = 0x200_5038;
/// Rounds by how long they took: one counter of 32 bits for every eighth of a power of two.
const LATENCIES: u64 = 0x200_6000;
const BUCKETS: u64 = 64 * 8;

/// Blocks of a MiB.
const MIB: u64 = 256;

impl Disk {
    /// The first block device there is. `in_flight` writes, at most 8, are under way at a time, to
    /// the first of every `spread` MiB.
    pub(crate) fn find(in_flight: u64, spread: u64) -> Option<Self> {
        put::<u64>(IN_FLIGHT, in_flight);
        put::<u64>(SPREAD, spread);
        match search(REGISTERS, 0x1000) {
            0 => match search(REGISTERS_OF_QEMU, 0x200) {
                0 => None,
                base => Some(Self::start(base)),
            },
            base => Some(Self::start(base)),
        }
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
        forget();
        Self { base }
    }

    /// Writes some blocks, and now and then flushes; waits until that is done. False when the device
    /// says that something failed.
    pub(crate) fn round(&self) -> bool {
        let rounds = get::<u32>(ROUNDS).wrapping_add(1);
        put::<u32>(ROUNDS, rounds);
        let place = place_of_round();
        let mut request = 0;
        while request < get::<u64>(IN_FLIGHT) {
            put::<u64>(HEADERS + request * 16 + 8, (place + request) * BLOCK / 512);
            offer(request);
            request += 1;
        }
        let began = time();
        self.wait();
        count(time() - began);
        if rounds % FLUSH_EVERY == 0 {
            offer(FLUSH);
            self.wait();
        }
        let mut failed = 0;
        let mut request = 0;
        while request <= FLUSH {
            failed |= get::<u8>(STATUSES + request);
            request += 1;
        }
        failed == 0
    }

    /// Has the device do what was offered, and waits until it did.
    fn wait(&self) {
        let offered = get::<u16>(OFFERED);
        fence(Ordering::SeqCst);
        put::<u16>(AVAILABLE + 2, offered);
        fence(Ordering::SeqCst);
        put::<u32>(self.base + 0x50, 0);
        let mut last = time();
        while get::<u16>(USED + 2) != offered {
            let now = time();
            if now - last > get::<u64>(LONGEST_GAP) {
                put::<u64>(LONGEST_GAP, now - last);
            }
            last = now;
        }
    }
}

/// The first of the blocks of a round: a multiple of 8.
fn place_of_round() -> u64 {
    // Knuth's MMIX generator; its high bits are the random ones.
    let random = get::<u64>(RANDOM)
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    put::<u64>(RANDOM, random);
    let random = random >> 24;
    let piece = MIB * get::<u64>(SPREAD);
    let pieces = (get::<u64>(BLOCKS) / piece).max(1);
    // A disk may be smaller than a piece.
    let within = MIB.min(get::<u64>(BLOCKS)) / WRITES;
    (random / MIB % pieces) * piece + (random % within) * WRITES
}

/// Counts a round that took so many ticks.
fn count(ticks: u64) {
    if ticks > get::<u64>(LONGEST_ROUND) {
        put::<u64>(LONGEST_ROUND, ticks);
    }
    let power = 63 - u64::from((ticks | 8).leading_zeros());
    let bucket = LATENCIES + (power * 8 + (ticks >> (power - 3) & 7)) * 4;
    put::<u32>(bucket, get::<u32>(bucket).wrapping_add(1));
}

/// Says what was counted, and begins anew: the clock, the longest time between two readings of it, the
/// longest round, and for every kind of round that there was `bucket:count`, in hexadecimal digits.
/// Bucket `b` has rounds of `(8 + b % 8) << (b / 8 - 3)` ticks and more.
pub(crate) fn report() {
    for number in [time(), get::<u64>(LONGEST_GAP), get::<u64>(LONGEST_ROUND)] {
        digits(number, 16);
        outb(SERIAL, b' ');
    }
    let mut bucket = 0;
    while bucket < BUCKETS {
        let count = get::<u32>(LATENCIES + bucket * 4);
        if count != 0 {
            digits(bucket, 3);
            outb(SERIAL, b':');
            digits(u64::from(count), 8);
            outb(SERIAL, b' ');
        }
        bucket += 1;
    }
    outb(SERIAL, b'\n');
    forget();
}

fn forget() {
    put::<u64>(LONGEST_GAP, 0);
    put::<u64>(LONGEST_ROUND, 0);
    let mut bucket = 0;
    while bucket < BUCKETS {
        put::<u32>(LATENCIES + bucket * 4, 0);
        bucket += 1;
    }
}

/// Looks at each place for registers, from `base` on; 0 when none is a block device's.
fn search(mut base: u64, stride: u64) -> u64 {
    let mut left = POSITIONS;
    while left > 0 {
        if get::<u32>(base) == MAGIC && get::<u32>(base + 8) == BLOCK_DEVICE {
            return base;
        }
        base += stride;
        left -= 1;
    }
    0
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
