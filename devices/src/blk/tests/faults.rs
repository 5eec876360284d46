//! Drivers that break the protocol: the device asks for a reset and leaves the queue alone.

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::testing::Descriptor;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

fn descriptor(address: u64, length: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        address,
        length,
        flags,
        next,
    }
}

/// Runs the queue on what `lay` makes available; it must end in a reset request, with nothing
/// returned, and stay silent after it.
fn assert_fault(what: &str, lay: impl Fn(&mut Bench)) {
    for engine in engines() {
        let mut bench = Bench::new(engine);
        lay(&mut bench);
        bench.run();
        assert!(bench.irq.is_reset_needed(), "{engine}: {what}");
        assert_eq!(bench.driver.device_used_idx(), 0, "{engine}: {what}");
        bench
            .driver
            .add(&[Part::Readable(&header(FLUSH, 0)), Part::Writable(1)]);
        bench.run();
        assert_eq!(
            bench.driver.device_used_idx(),
            0,
            "{engine}: {what}, afterwards"
        );
        assert_eq!(
            bench.content(0, SECTORS),
            pattern(0, SECTORS),
            "{engine}: {what}"
        );
    }
}

#[test]
fn malformed_chains_ask_for_a_reset() {
    assert_fault("no status byte", |bench| {
        bench.driver.add(&[Part::Readable(&header(FLUSH, 0))]);
    });
    assert_fault("empty status buffer", |bench| {
        bench
            .driver
            .add(&[Part::Readable(&header(FLUSH, 0)), Part::Writable(0)]);
    });
    assert_fault("short header", |bench| {
        bench
            .driver
            .add(&[Part::Readable(&header(OUT, 0)[..15]), Part::Writable(1)]);
    });
    assert_fault("no header", |bench| {
        bench.driver.add(&[Part::Writable(513)]);
    });
    assert_fault("readable after writable", |bench| {
        bench.driver.add(&[
            Part::Readable(&header(OUT, 0)),
            Part::Writable(1),
            Part::Readable(&[0; 512]),
        ]);
    });
}

#[test]
fn header_or_status_outside_memory_asks_for_a_reset() {
    let end = 32 << 20;
    for address in [end, end - 511, u64::MAX - 511, u64::MAX] {
        assert_fault("status", |bench| {
            let parts = [
                Part::Readable(&header(FLUSH, 0)),
                Part::WritableAt(address, 512),
            ];
            bench.driver.add(&parts);
        });
    }
    assert_fault("header", |bench| {
        bench
            .driver
            .add(&[Part::ReadableAt(end - 15, 16), Part::Writable(1)]);
    });
}

#[test]
fn data_outside_memory_is_an_io_error_and_the_disk_goes_on() {
    let end = 32 << 20;
    for engine in engines() {
        let mut bench = Bench::new(engine);
        for address in [end, end - 511, u64::MAX - 511, u64::MAX] {
            for (kind, data) in [
                (OUT, Part::ReadableAt(address, 512)),
                (IN, Part::WritableAt(address, 512)),
            ] {
                let (status, used, _) = bench.request(kind, 0, &[data]);
                assert_eq!((status, used), (IOERR, 1), "{engine}: {address:#x}");
            }
        }
        assert_eq!(bench.status(FLUSH, 0, &[]), OK, "{engine}");
        assert_eq!(bench.content(0, SECTORS), pattern(0, SECTORS), "{engine}");
    }
}

#[test]
fn broken_descriptors_ask_for_a_reset() {
    let cases = [
        ("loop", descriptor(0x40_0000, 16, NEXT, 0)),
        (
            "next beyond the table",
            descriptor(0x40_0000, 16, NEXT, QUEUE_SIZE),
        ),
        (
            "indirect table outside memory",
            descriptor(32 << 20, 16, INDIRECT, 0),
        ),
        (
            "indirect table of odd size",
            descriptor(0x40_0000, 17, INDIRECT, 0),
        ),
        (
            "empty indirect table",
            descriptor(0x40_0000, 0, INDIRECT, 0),
        ),
        (
            "more than 4 GiB",
            descriptor(0x40_0000, u32::MAX, NEXT | WRITE, 0),
        ),
    ];
    for (what, descriptor) in cases {
        assert_fault(what, |bench| {
            bench.driver.write_descriptor(0, descriptor);
            bench.driver.publish(0);
        });
    }
    assert_fault("whole request that claims to go on", |bench| {
        let head = bench
            .driver
            .prepare(&[Part::Readable(&header(FLUSH, 0)), Part::Writable(1)]);
        let status = bench.driver.address(head, 1);
        let beyond = descriptor(status, 1, WRITE | NEXT, QUEUE_SIZE);
        bench.driver.write_descriptor(head + 1, beyond);
        bench.driver.publish(head);
    });
    assert_fault("nested indirect table", |bench| {
        let table = 0x40_0000_u64;
        let mut inner = table.to_le_bytes().to_vec();
        inner.extend(16_u32.to_le_bytes());
        inner.extend(INDIRECT.to_le_bytes());
        inner.extend(0_u16.to_le_bytes());
        bench
            .memory
            .write_slice(&inner, GuestAddress(table))
            .unwrap();
        bench
            .driver
            .write_descriptor(0, descriptor(table, 16, INDIRECT, 0));
        bench.driver.publish(0);
    });
    assert_fault("head beyond the queue", |bench| {
        bench.driver.publish(QUEUE_SIZE)
    });
    assert_fault("avail index ahead of the queue", |bench| {
        bench.driver.set_avail_idx(QUEUE_SIZE + 1);
    });
}

#[test]
fn long_indirect_table_is_refused() {
    assert_fault("a table of 2000", |bench| {
        let (head, tail) = (header(OUT, 0), Part::Writable(1));
        let mut parts = vec![Part::Readable(&head)];
        parts.resize(1999, Part::ReadableAt(0x80_0000, 1));
        parts.push(tail);
        bench.driver.add_indirect(&parts);
    });
}

#[test]
fn head_in_flight_can_not_be_used_again() {
    for engine in engines() {
        let mut bench = Bench::new(engine);
        let parts = [
            Part::Readable(&header(IN, 0)),
            Part::Writable(512),
            Part::Writable(1),
        ];
        let head = bench.driver.add(&parts);
        bench.driver.publish(head);
        bench.run();
        assert!(bench.irq.is_reset_needed(), "{engine}");
    }
}

#[test]
fn random_garbage_never_panics() {
    use proptest::prelude::*;
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let ring = prop::collection::vec(any::<u8>(), 2048);
    let table = prop::collection::vec((0_u64..40 << 20, 0_u32..2048, 0_u16..8, 0_u16..80), 64);
    for engine in engines() {
        let ran = runner.run(&(ring.clone(), table.clone()), |(ring, table)| {
            let mut bench = Bench::new(engine);
            let (table_at, avail) = (
                bench.driver.descriptor_table(),
                bench.driver.available_ring(),
            );
            bench
                .memory
                .write_slice(&ring, GuestAddress(table_at))
                .unwrap();
            for (index, (address, length, flags, next)) in (0..).zip(table) {
                bench
                    .driver
                    .write_descriptor(index, descriptor(address, length, flags, next));
            }
            let heads: Vec<u8> = ring
                .iter()
                .flat_map(|byte| [byte % 64, 0])
                .take(128)
                .collect();
            bench
                .memory
                .write_slice(&heads, GuestAddress(avail + 4))
                .unwrap();
            bench.driver.set_avail_idx(40);
            bench.run();
            Ok(())
        });
        ran.unwrap();
    }
}
