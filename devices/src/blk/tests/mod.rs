//! Requests as a driver makes them, against a queue without a thread, on both engines.

mod guest;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use super::request::Limits;
use super::worker::{BlkQueue, Disk};
use crate::device::DeviceId;
use crate::disk::{DiskEngine, Durability, RawDisk, SyncEngine, UringEngine};
use crate::worker::Handler;
use guest::*;

const SECTORS: u64 = 256;
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

const HEADER: u64 = BUFFERS;
const STATUS: u64 = BUFFERS + 0x800;
const DATA: u64 = BUFFERS + 0x1000;

/// The engines that this host has.
fn engines() -> Vec<&'static str> {
    let mut names = vec!["sync"];
    match UringEngine::probe(&RawDisk::new(image(1)).unwrap()) {
        Ok(()) => names.push("io_uring"),
        Err(error) => println!("skipped: io_uring engine, the host refuses it: {error}"),
    }
    names
}

fn image(sectors: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(sectors * 512).unwrap();
    file
}

fn read_only(file: &File) -> File {
    use std::os::fd::AsRawFd;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap()
}

fn engine(name: &str, disk: RawDisk, guest: &Guest) -> Box<dyn DiskEngine> {
    let (disk, memory) = (Arc::new(disk), guest.memory.clone());
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

/// A guest and the queue it drives; the image is seen through a second handle.
struct Bench {
    guest: Guest,
    irq: Arc<Irq>,
    queue: BlkQueue,
    image: File,
}

impl Bench {
    fn new(engine_name: &str) -> Self {
        Self::on(engine_name, image(SECTORS))
    }

    fn on(engine_name: &str, file: File) -> Self {
        let disk = RawDisk::new(file.try_clone().unwrap()).unwrap();
        let guest = Guest::new();
        let engine = engine(engine_name, disk, &guest);
        Self::with(guest, file, engine)
    }

    fn with(guest: Guest, image: File, engine: Box<dyn DiskEngine>) -> Self {
        let irq = Irq::new();
        let mut serial = [0; 20];
        serial[..4].copy_from_slice(b"data");
        let disk = Disk {
            id: DeviceId::new("disk0"),
            limits: Limits {
                capacity: SECTORS * 512,
                writable: true,
                discard: true,
            },
            serial,
        };
        let queue = BlkQueue::new(
            disk,
            guest.queue(),
            guest.memory.clone(),
            irq.clone(),
            engine,
        );
        Self {
            guest,
            irq,
            queue,
            image,
        }
    }

    /// Serves what is available and waits for it.
    fn run(&mut self) {
        self.queue.start();
        self.queue.drain();
    }

    /// One request with one data buffer; returns its status and the used length.
    fn request(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
        self.guest.header(HEADER, kind, sector);
        self.guest.write(STATUS, &[0xee]);
        let mut chain = vec![readable(HEADER, 16)];
        chain.extend_from_slice(data);
        chain.push(writable(STATUS, 1));
        self.guest.lay(0, &chain);
        self.guest.offer(0);
        self.run();
        let (head, len) = self.guest.pop_used().expect("the request was returned");
        assert_eq!(head, 0);
        assert!(!self.irq.needs_reset_seen());
        (self.guest.byte(STATUS), len)
    }

    fn content(&mut self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.image.seek(SeekFrom::Start(offset)).unwrap();
        self.image.read_exact(&mut bytes).unwrap();
        bytes
    }
}

#[test]
fn write_reaches_the_image_and_reads_back() {
    for engine in engines() {
        let mut bench = Bench::new(engine);
        let data: Vec<u8> = (0..4096_u32).map(|i| i.to_le_bytes()[0]).collect();
        bench.guest.write(DATA, &data);
        assert_eq!(
            bench.request(OUT, 8, &[readable(DATA, 4096)]),
            (OK, 1),
            "{engine}"
        );
        assert_eq!(bench.content(8 * 512, 4096), data, "{engine}");
        let split = [writable(DATA + 0x2000, 1000), writable(DATA + 0x4000, 3096)];
        assert_eq!(bench.request(IN, 8, &split), (OK, 4097), "{engine}");
        assert_eq!(
            bench.guest.read(DATA + 0x2000, 1000),
            data[..1000],
            "{engine}"
        );
        assert_eq!(
            bench.guest.read(DATA + 0x4000, 3096),
            data[1000..],
            "{engine}"
        );
        assert_eq!(bench.request(FLUSH, 0, &[]), (OK, 1), "{engine}");
    }
}
