//! Requests as a driver makes them, against a queue without a thread, on both engines.

mod device;
mod faults;
mod gate;
mod host_errors;
mod model;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::request::{ID_BYTES, Limits};
use super::requests::Disk;
use super::worker::BlkQueue;
use crate::device::{DeviceId, Memory};
use crate::disk::{DiskEngine, Durability, PreservingEngine, RawDisk, SyncEngine, UringEngine};
use crate::testing::{FakeInterrupt, Part, QueueDriver, guest_memory};
use crate::worker::Handler;

const SECTORS: u64 = 256;
const QUEUE_SIZE: u16 = 64;
/// VERSION_1 and EVENT_IDX.
const FEATURES: u64 = 1 << 32 | 1 << 29;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// The engines that this host has.
fn engines() -> Vec<&'static str> {
    let mut names = vec!["sync"];
    match UringEngine::probe(&RawDisk::new(image()).unwrap()) {
        Ok(()) => names.push("io_uring"),
        Err(error) => println!("skipped: io_uring engine, the host refuses it: {error}"),
    }
    names
}

/// An image of [`SECTORS`], every sector filled with its number.
fn image() -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&pattern(0, SECTORS), 0).unwrap();
    file
}

/// What [`image`] holds in these sectors.
fn pattern(first: u64, count: u64) -> Vec<u8> {
    let sectors = first..first + count;
    sectors
        .flat_map(|sector| [sector.to_le_bytes()[0]; 512])
        .collect()
}

/// The same file, open for reading only.
fn read_only(file: &File) -> File {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap()
}

fn engine(name: &str, image: File, memory: &Memory) -> Box<dyn DiskEngine> {
    let (disk, memory) = (Arc::new(RawDisk::new(image).unwrap()), memory.clone());
    match name {
        "sync" => Box::new(SyncEngine::new(
            disk,
            memory,
            QUEUE_SIZE,
            Durability::OnFlush,
        )),
        _ => Box::new(UringEngine::new(disk, memory, QUEUE_SIZE, Durability::OnFlush).unwrap()),
    }
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

/// One `virtio_blk_discard_write_zeroes`.
fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

/// A driver and the queue it drives; the image is seen through a handle of its own.
struct Bench {
    memory: Memory,
    driver: QueueDriver,
    irq: Arc<FakeInterrupt>,
    queue: BlkQueue,
    image: File,
}

impl Bench {
    fn new(engine_name: &str) -> Self {
        Self::on(engine_name, image())
    }

    fn on(engine_name: &str, image: File) -> Self {
        let memory = guest_memory();
        let engine = engine(engine_name, image.try_clone().unwrap(), &memory);
        Self::with(memory, image, engine, FEATURES)
    }

    fn with(memory: Memory, image: File, engine: Box<dyn DiskEngine>, features: u64) -> Self {
        let driver = QueueDriver::new(&memory, 0, QUEUE_SIZE);
        let limits = Limits {
            capacity: SECTORS * 512,
            writable: true,
            discard: true,
        };
        Self::limited(memory, (image, engine), (driver, features), limits)
    }

    fn limited(
        memory: Memory,
        (image, engine): (File, Box<dyn DiskEngine>),
        (driver, features): (QueueDriver, u64),
        limits: Limits,
    ) -> Self {
        let irq = FakeInterrupt::new();
        let mut serial = [0; ID_BYTES];
        serial[..4].copy_from_slice(b"data");
        let id = DeviceId::new("disk0");
        let disk = Disk { id, limits, serial };
        let active = driver.active_queue(features);
        let guarded = Arc::new(RawDisk::new(image.try_clone().unwrap()).unwrap());
        let engine = PreservingEngine::new(engine, guarded);
        let queue = BlkQueue::new(disk, active, memory.clone(), irq.clone(), engine);
        Self {
            memory,
            driver,
            irq,
            queue,
            image,
        }
    }

    /// Serves what is available, and waits until it is done.
    fn run(&mut self) {
        self.queue.start();
        self.queue.drain();
    }

    /// One request: header, `data`, status. Returns the status, the used length and the head.
    fn request(&mut self, kind: u32, sector: u64, data: &[Part<'_>]) -> (u8, u32, u16) {
        let header = header(kind, sector);
        let mut parts = vec![Part::Readable(&header)];
        parts.extend_from_slice(data);
        parts.push(Part::Writable(1));
        let head = self.driver.add(&parts);
        self.run();
        assert!(!self.irq.is_reset_needed());
        let used = self.driver.take_used().expect("the request was returned");
        assert_eq!(used.head, head);
        let status = self.driver.bytes(head, parts.len() - 1)[0];
        (status, used.written, head)
    }

    /// As [`Bench::request`], for those of which only the status counts.
    fn status(&mut self, kind: u32, sector: u64, data: &[Part<'_>]) -> u8 {
        self.request(kind, sector, data).0
    }

    /// What the image holds in these sectors.
    fn content(&self, first: u64, count: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(count * 512).unwrap()];
        self.image.read_exact_at(&mut bytes, first * 512).unwrap();
        bytes
    }
}

#[test]
fn read_fills_every_segment() {
    for engine in engines() {
        let mut bench = Bench::new(engine);
        let (status, used, head) =
            bench.request(IN, 8, &[Part::Writable(1000), Part::Writable(3096)]);
        assert_eq!((status, used), (OK, 4097), "{engine}");
        let mut read = bench.driver.bytes(head, 1);
        read.extend(bench.driver.bytes(head, 2));
        assert_eq!(read, pattern(8, 8), "{engine}");
    }
}

#[test]
fn write_reaches_the_image_and_nothing_else() {
    for engine in engines() {
        let mut bench = Bench::new(engine);
        let data = [0x5a; 1024];
        let parts = [Part::Readable(&data[..1]), Part::Readable(&data[1..])];
        assert_eq!(bench.request(OUT, 8, &parts).0, OK, "{engine}");
        assert_eq!(bench.content(7, 1), pattern(7, 1), "{engine}");
        assert_eq!(bench.content(8, 2), data, "{engine}");
        assert_eq!(bench.content(10, 246), pattern(10, 246), "{engine}");
    }
}

#[test]
fn header_and_status_need_no_descriptor_of_their_own() {
    for engine in engines() {
        let mut bench = Bench::new(engine);
        let header_in = header(IN, 3);
        let head = bench.driver.add(&[
            Part::Readable(&header_in[..5]),
            Part::Readable(&[]),
            Part::Readable(&header_in[5..]),
            Part::Writable(513),
        ]);
        let mut out = header(OUT, 9).to_vec();
        out.extend([7; 512]);
        let out_head = bench
            .driver
            .add_indirect(&[Part::Readable(&out), Part::Writable(1)]);
        bench.run();
        let read = bench.driver.bytes(head, 3);
        assert_eq!((&read[..512], read[512]), (&*pattern(3, 1), OK), "{engine}");
        assert_eq!(bench.driver.bytes(out_head, 1), [OK], "{engine}");
        assert_eq!(bench.content(9, 1), [7; 512], "{engine}");
    }
}

#[test]
fn buffer_may_cross_regions_and_end_with_memory() {
    for engine in engines() {
        let mut bench = Bench::new(engine);
        let across = Part::WritableAt((16 << 20) - 512, 1024);
        assert_eq!(bench.status(IN, 0, &[across]), OK, "{engine}");
        let last = Part::WritableAt((32 << 20) - 512, 512);
        assert_eq!(bench.status(IN, 5, &[last]), OK, "{engine}");
        let read = bench.driver.add(&[Part::ReadableAt((32 << 20) - 512, 512)]);
        assert_eq!(bench.driver.bytes(read, 0), pattern(5, 1), "{engine}");
        let read = bench
            .driver
            .prepare(&[Part::ReadableAt((16 << 20) - 512, 1024)]);
        assert_eq!(bench.driver.bytes(read, 0), pattern(0, 2), "{engine}");
    }
}

#[test]
fn request_beyond_the_end_fails_and_leaves_the_image_alone() {
    for engine in engines() {
        let mut bench = Bench::new(engine);
        let before = bench.content(0, SECTORS);
        let data = [1; 1024];
        for sector in [
            SECTORS - 1,
            SECTORS,
            u64::MAX / 512,
            u64::MAX / 512 + 1,
            u64::MAX,
        ] {
            assert_eq!(
                bench.status(OUT, sector, &[Part::Readable(&data)]),
                IOERR,
                "{engine} {sector}"
            );
            let (status, used, _) = bench.request(IN, sector, &[Part::Writable(1024)]);
            assert_eq!((status, used), (IOERR, 1), "{engine} {sector}");
            let one = range(sector, 2, 0);
            assert_eq!(
                bench.status(WRITE_ZEROES, 0, &[Part::Readable(&one)]),
                IOERR,
                "{engine} {sector}"
            );
        }
        assert_eq!(
            bench.status(IN, SECTORS - 2, &[Part::Writable(1024)]),
            OK,
            "{engine}"
        );
        assert_eq!(
            bench.image.metadata().unwrap().len(),
            SECTORS * 512,
            "{engine}"
        );
        assert_eq!(bench.content(0, SECTORS), before, "{engine}");
    }
}

#[test]
fn half_a_sector_is_refused() {
    for engine in engines() {
        let mut bench = Bench::new(engine);
        assert_eq!(
            bench.status(IN, 0, &[Part::Writable(513)]),
            IOERR,
            "{engine}"
        );
        assert_eq!(
            bench.status(OUT, 0, &[Part::Readable(&[0; 100])]),
            IOERR,
            "{engine}"
        );
    }
}

#[test]
fn get_id_answers_twenty_bytes() {
    for engine in engines() {
        let mut bench = Bench::new(engine);
        let (status, used, head) =
            bench.request(GET_ID, 0, &[Part::Writable(7), Part::Writable(20)]);
        assert_eq!((status, used), (OK, 21), "{engine}");
        let mut id = bench.driver.bytes(head, 1);
        id.extend(bench.driver.bytes(head, 2));
        assert_eq!(&id[..4], b"data", "{engine}");
        assert_eq!(id[4..20], [0; 16], "{engine}");
        assert_eq!(id[20..], [0xaa; 7], "{engine}");
        assert_eq!(
            bench.status(GET_ID, 0, &[Part::Writable(19)]),
            IOERR,
            "{engine}"
        );
    }
}

#[test]
fn unknown_request_is_unsupported() {
    for engine in engines() {
        let mut bench = Bench::new(engine);
        for kind in [2, 3, 14, u32::MAX] {
            assert_eq!(bench.status(kind, 0, &[]), UNSUPP, "{engine} {kind}");
        }
    }
}

#[test]
fn write_zeroes_and_discard_free_or_keep_space() {
    use std::os::unix::fs::MetadataExt;
    for engine in engines() {
        let mut bench = Bench::new(engine);
        let blocks = bench.image.metadata().unwrap().blocks();
        let keep = range(0, 64, 0);
        assert_eq!(
            bench.status(WRITE_ZEROES, 0, &[Part::Readable(&keep)]),
            OK,
            "{engine}"
        );
        assert_eq!(bench.content(0, 64), [0; 64 * 512], "{engine}");
        assert_eq!(bench.image.metadata().unwrap().blocks(), blocks, "{engine}");
        // Two ranges of which one starts within a filesystem block.
        let mut free = range(67, 64, 1);
        free.extend(range(192, 64, 1));
        assert_eq!(
            bench.status(WRITE_ZEROES, 0, &[Part::Readable(&free)]),
            OK,
            "{engine}"
        );
        assert_eq!(bench.content(64, 3), pattern(64, 3), "{engine}");
        assert_eq!(bench.content(67, 64), [0; 64 * 512], "{engine}");
        assert_eq!(bench.content(131, 61), pattern(131, 61), "{engine}");
        assert_eq!(bench.content(192, 64), [0; 64 * 512], "{engine}");
        let discard = range(136, 32, 0);
        assert_eq!(
            bench.status(DISCARD, 0, &[Part::Readable(&discard)]),
            OK,
            "{engine}"
        );
        assert_eq!(bench.content(131, 5), pattern(131, 5), "{engine}");
        assert!(
            bench.image.metadata().unwrap().blocks() < blocks,
            "{engine}"
        );
    }
}

#[test]
fn bad_ranges_are_refused() {
    for engine in engines() {
        let mut bench = Bench::new(engine);
        let cases = [
            (DISCARD, range(0, 8, 1), UNSUPP, "unmap flag on a discard"),
            (DISCARD, range(0, 8, 2), UNSUPP, "unknown flag"),
            (
                WRITE_ZEROES,
                range(0, 8, 3),
                UNSUPP,
                "unknown flag beside a known one",
            ),
            (WRITE_ZEROES, range(0, 0, 0), IOERR, "no sectors"),
            (DISCARD, range(0, u32::MAX, 0), IOERR, "too many sectors"),
            (
                DISCARD,
                range(0, 8, 0)[..15].to_vec(),
                IOERR,
                "half a range",
            ),
            (DISCARD, Vec::new(), IOERR, "no range"),
            (DISCARD, range(0, 1, 0).repeat(33), IOERR, "too many ranges"),
        ];
        for (kind, bytes, expected, what) in cases {
            assert_eq!(
                bench.status(kind, 0, &[Part::Readable(&bytes)]),
                expected,
                "{engine}: {what}"
            );
        }
        assert_eq!(bench.content(0, SECTORS), pattern(0, SECTORS), "{engine}");
    }
}

#[test]
fn read_only_disk_refuses_every_change() {
    // The request path refuses by itself, even if the image were open for writing.
    let handles = [read_only, |file: &File| file.try_clone().unwrap()];
    for (engine_name, handle) in engines()
        .into_iter()
        .flat_map(|name| handles.map(|handle| (name, handle)))
    {
        let memory = guest_memory();
        let file = image();
        let engine = engine(engine_name, handle(&file), &memory);
        let driver = QueueDriver::new(&memory, 0, QUEUE_SIZE);
        let limits = Limits {
            capacity: SECTORS * 512,
            writable: false,
            discard: false,
        };
        let mut bench = Bench::limited(memory, (file, engine), (driver, FEATURES), limits);
        assert_eq!(
            bench.status(OUT, 0, &[Part::Readable(&[1; 512])]),
            IOERR,
            "{engine_name}"
        );
        for kind in [DISCARD, WRITE_ZEROES] {
            let one = range(0, 8, 0);
            assert_eq!(
                bench.status(kind, 0, &[Part::Readable(&one)]),
                IOERR,
                "{engine_name}"
            );
        }
        assert_eq!(
            bench.status(IN, 4, &[Part::Writable(512)]),
            OK,
            "{engine_name}"
        );
        assert_eq!(bench.status(FLUSH, 0, &[]), OK, "{engine_name}");
        assert_eq!(
            bench.content(0, SECTORS),
            pattern(0, SECTORS),
            "{engine_name}"
        );
    }
}

#[test]
fn hidden_discard_is_unsupported() {
    for engine_name in engines() {
        let memory = guest_memory();
        let file = image();
        let engine = engine(engine_name, file.try_clone().unwrap(), &memory);
        let driver = QueueDriver::new(&memory, 0, QUEUE_SIZE);
        let limits = Limits {
            capacity: SECTORS * 512,
            writable: true,
            discard: false,
        };
        let mut bench = Bench::limited(memory, (file, engine), (driver, FEATURES), limits);
        let one = range(0, 8, 0);
        assert_eq!(
            bench.status(DISCARD, 0, &[Part::Readable(&one)]),
            UNSUPP,
            "{engine_name}"
        );
    }
}

#[test]
fn batch_is_one_interrupt() {
    let mut bench = Bench::new("sync");
    let headers: Vec<_> = (0..21).map(|sector| header(IN, sector)).collect();
    let mut heads = Vec::new();
    for header in &headers {
        let parts = [
            Part::Readable(header),
            Part::Writable(512),
            Part::Writable(1),
        ];
        heads.push(bench.driver.add(&parts));
    }
    bench.run();
    assert_eq!(bench.irq.queue_interrupts(), 1);
    for (sector, head) in (0..).zip(heads) {
        assert_eq!(bench.driver.take_used().unwrap().head, head);
        assert_eq!(bench.driver.bytes(head, 1), pattern(sector, 1));
    }
}
