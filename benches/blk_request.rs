//! Block requests through the whole device: from the kick until the driver has the answer, on an
//! image in the page cache, with each engine.

use std::error::Error;
use std::fs::File;

use benches::rig::Rig;
use criterion::{Criterion, Throughput};
use devices::blk::{Access, Blk, BlkConfig, Discard, Engine};
use devices::device::DeviceId;
use devices::registry::{BuildError, Position};
use devices::testing::{Part, QueueDriver};

const IMAGE_BYTES: u64 = 64 << 20;

/// `VIRTIO_BLK_T_IN`, `VIRTIO_BLK_T_OUT`, `VIRTIO_BLK_T_GET_ID` (virtio 1.2 §5.2.6).
const READ: u32 = 0;
const WRITE: u32 = 1;
const GET_ID: u32 = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, engine) in [("sync", Engine::Sync), ("io_uring", Engine::IoUring)] {
        let image = tempfile::tempfile()?;
        image.set_len(IMAGE_BYTES)?;
        match disk(image, engine) {
            Ok(disk) => bench(&mut criterion, name, disk)?,
            Err(error @ BuildError::Host { .. }) => {
                println!("skipped: blk_request/{name}: {error}")
            }
            Err(error) => return Err(error.into()),
        }
    }
    criterion.final_summary();
    Ok(())
}

fn disk(image: File, engine: Engine) -> Result<Blk, BuildError> {
    let config = BlkConfig {
        id: DeviceId::new("disk0"),
        position: Position(0),
        access: Access::ReadWrite,
        serial: None,
        engine,
        discard: Discard::Hide,
    };
    Blk::build(&config, image, None)
}

fn bench(criterion: &mut Criterion, engine: &str, disk: Blk) -> Result<(), Box<dyn Error>> {
    let (rig, mut drivers) = Rig::activate(Box::new(disk))?;
    let driver = drivers.first_mut().ok_or("a disk has a queue")?;
    let mut group = criterion.benchmark_group(format!("blk_request/{engine}"));
    // No data moves: parsing, answering and the way there and back.
    group.bench_function("get_id", |bench| {
        bench.iter(|| {
            finish(&rig, driver, 1, |driver, _| {
                request(driver, GET_ID, 0, Part::Writable(20))
            })
        });
    });
    let data = vec![0x5a; 64 << 10];
    for (bytes, depth) in [
        (4096_usize, 1_u64),
        (4096, 32),
        (64 << 10, 1),
        (64 << 10, 32),
    ] {
        let sectors = bytes as u64 / 512;
        let length = u32::try_from(bytes)?;
        group.throughput(Throughput::Bytes(bytes as u64 * depth));
        group.bench_function(format!("read_{bytes}_depth_{depth}"), |bench| {
            bench.iter(|| {
                finish(&rig, driver, depth, |driver, number| {
                    request(driver, READ, number * sectors, Part::Writable(length));
                });
            });
        });
        group.bench_function(format!("write_{bytes}_depth_{depth}"), |bench| {
            bench.iter(|| {
                finish(&rig, driver, depth, |driver, number| {
                    request(
                        driver,
                        WRITE,
                        number * sectors,
                        Part::Readable(&data[..bytes]),
                    );
                });
            });
        });
    }
    group.finish();
    Ok(())
}

fn request(driver: &mut QueueDriver, kind: u32, sector: u64, data: Part<'_>) {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    driver.add(&[Part::Readable(&header), data, Part::Writable(1)]);
}

/// Adds `depth` requests, kicks once, and waits for all answers.
fn finish(
    rig: &Rig,
    driver: &mut QueueDriver,
    depth: u64,
    mut add: impl FnMut(&mut QueueDriver, u64),
) {
    for number in 0..depth {
        add(driver, number);
    }
    driver.kick();
    for _ in 0..depth {
        let used = rig.wait(driver);
        assert!(used.is_some(), "a request was not answered");
        let status = used.map(|used| driver.bytes(used.head, 2));
        assert_eq!(status.as_deref(), Some([0].as_slice()), "a request failed");
    }
}
