//! The device as a transport drives it: with its thread.

use super::*;
use crate::blk::device::choose;
use crate::blk::{Access, Blk, BlkConfig, BlkStateV1, Discard, Engine};
use crate::device::{ActivateError, VirtioDevice};
use crate::registry::{BuildError, Position};
use crate::state::{StateBlob, StateError};
use crate::testing::activation;

const RO: u64 = 1 << 5;
const FLUSH_BIT: u64 = 1 << 9;
const DISCARD_BITS: u64 = 1 << 13 | 1 << 14;

fn config() -> BlkConfig {
    BlkConfig {
        id: DeviceId::new("disk0"),
        position: Position(0),
        access: Access::ReadWrite,
        serial: Some("state".into()),
        engine: Engine::Auto,
        discard: Discard::Offer,
    }
}

fn build_error(config: &BlkConfig, image: File, saved: Option<StateBlob>) -> String {
    match Blk::build(config, image, saved) {
        Ok(_) => panic!("the device was built"),
        Err(error) => error.to_string(),
    }
}

fn field<const N: usize>(device: &Blk, offset: u64) -> [u8; N] {
    let mut bytes = [0xff; N];
    device.read_config(offset, &mut bytes);
    bytes
}

/// Reads sector `sector` through an active device.
fn read(driver: &mut QueueDriver, irq: &FakeInterrupt, sector: u64) -> Vec<u8> {
    let parts = [
        Part::Readable(&header(IN, sector)),
        Part::Writable(512),
        Part::Writable(1),
    ];
    let head = driver.add(&parts);
    driver.kick();
    let used = driver.wait_used(irq).expect("the request is returned");
    assert_eq!((used.head, used.written), (head, 513));
    assert_eq!(driver.bytes(head, 2), [OK]);
    driver.bytes(head, 1)
}

#[test]
fn features_follow_the_configuration() {
    let device = Blk::build(&config(), image(), None).unwrap();
    let features = device.spec().features;
    assert_eq!(
        features & (RO | FLUSH_BIT | DISCARD_BITS),
        FLUSH_BIT | DISCARD_BITS
    );
    assert_eq!(features & FEATURES, FEATURES);
    let hidden = BlkConfig {
        discard: Discard::Hide,
        ..config()
    };
    let device = Blk::build(&hidden, image(), None).unwrap();
    assert_eq!(device.spec().features & DISCARD_BITS, 0);
    let read_only_config = BlkConfig {
        access: Access::ReadOnly,
        ..config()
    };
    let device = Blk::build(&read_only_config, read_only(&image()), None).unwrap();
    assert_eq!(
        device.spec().features & (RO | FLUSH_BIT | DISCARD_BITS),
        RO | FLUSH_BIT
    );
}

#[test]
fn configuration_space_tells_size_and_limits() {
    let device = Blk::build(&config(), image(), None).unwrap();
    assert_eq!(u64::from_le_bytes(field(&device, 0)), SECTORS);
    assert_eq!(u32::from_le_bytes(field(&device, 12)), 254);
    assert_eq!(u32::from_le_bytes(field(&device, 20)), 512);
    assert_eq!(field(&device, 24), [3_u8]);
    assert_eq!(u32::from_le_bytes(field(&device, 40)), 32);
    assert_eq!(field(&device, 56), [1_u8]);
    assert_eq!(field(&device, 58), [0_u8; 8]);
    assert_eq!(field(&device, u64::MAX), [0_u8; 8]);
}

#[test]
fn unfit_images_are_named() {
    let odd = tempfile::tempfile().unwrap();
    odd.set_len(513).unwrap();
    assert!(build_error(&config(), odd, None).contains("513 bytes, expected a multiple of 512"));
    let empty = tempfile::tempfile().unwrap();
    assert!(build_error(&config(), empty, None).contains("0 bytes"));
    let directory = File::open("/tmp").unwrap();
    assert!(build_error(&config(), directory, None).contains("neither a regular file"));
    let full = File::options()
        .read(true)
        .write(true)
        .open("/dev/full")
        .unwrap();
    assert!(build_error(&config(), full, None).contains("neither a regular file"));
    let file = image();
    let append = File::options()
        .read(true)
        .append(true)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()));
    assert!(build_error(&config(), append.unwrap(), None).contains("O_APPEND"));
}

#[test]
fn open_mode_has_to_match_the_access() {
    assert!(
        build_error(&config(), read_only(&image()), None).contains("expected reading and writing")
    );
    let read_only_config = BlkConfig {
        access: Access::ReadOnly,
        ..config()
    };
    assert!(build_error(&read_only_config, image(), None).contains("expected read-only"));
}

#[test]
fn long_serial_is_refused() {
    for serial in ["123456789012345678901", "ü"] {
        let config = BlkConfig {
            serial: Some(serial.into()),
            ..config()
        };
        assert!(build_error(&config, image(), None).contains("serial"));
    }
}

#[test]
fn saved_state_of_another_disk_is_refused() {
    let device = Blk::build(&config(), image(), None).unwrap();
    let saved = device.save().unwrap();
    assert!(Blk::build(&config(), image(), Some(saved.clone())).is_ok());
    let good: BlkStateV1 = saved.decode("blk", 1).unwrap();
    let wrong = [
        (
            "capacity",
            BlkStateV1 {
                capacity_sectors: SECTORS + 1,
                ..good.clone()
            },
        ),
        (
            "access",
            BlkStateV1 {
                read_only: true,
                ..good.clone()
            },
        ),
        (
            "discard offer",
            BlkStateV1 {
                discard: false,
                ..good
            },
        ),
    ];
    for (expected, state) in wrong {
        let blob = StateBlob::encode("blk", 1, &state).unwrap();
        match Blk::build(&config(), image(), Some(blob)) {
            Err(BuildError::State {
                source: StateError::Invalid { field, .. },
                ..
            }) => assert_eq!(field, expected),
            other => panic!("{expected}: {:?}", other.err()),
        }
    }
    let foreign = StateBlob {
        version: 2,
        ..saved
    };
    assert!(Blk::build(&config(), image(), Some(foreign)).is_err());
}

#[test]
fn stopped_device_goes_on_where_it_was() {
    for engine in [Engine::Auto, Engine::Sync] {
        let mut device = Blk::build(&BlkConfig { engine, ..config() }, image(), None).unwrap();
        let (memory, irq) = (guest_memory(), FakeInterrupt::new());
        let mut driver = QueueDriver::new(&memory, 0, 256);
        let features = device.spec().features;
        let queues = [driver.active_queue(features)];
        device
            .activate(activation(&memory, &irq, features, queues))
            .unwrap();
        assert_eq!(read(&mut driver, &irq, 1), pattern(1, 1));
        assert!(matches!(device.save(), Err(StateError::Active)));
        let stopped = device.stop().unwrap();
        assert_eq!(stopped.queues.len(), 1);
        assert!(device.save().is_ok());
        // A chain that became available while stopped, its kick lost.
        let parts = [
            Part::Readable(&header(GET_ID, 0)),
            Part::Writable(20),
            Part::Writable(1),
        ];
        let head = driver.add(&parts);
        device
            .activate(activation(&memory, &irq, features, stopped.queues))
            .unwrap();
        assert_eq!(driver.wait_used(&*irq).unwrap().head, head);
        assert_eq!(&driver.bytes(head, 1)[..6], b"state\0");
        assert_eq!(read(&mut driver, &irq, 2), pattern(2, 1));
        device.stop().unwrap();
        assert!(device.stop().unwrap().queues.is_empty());
    }
}

#[test]
fn second_activation_and_missing_queue_are_refused() {
    let mut device = Blk::build(&config(), image(), None).unwrap();
    let (memory, irq) = (guest_memory(), FakeInterrupt::new());
    let none = device.activate(activation(&memory, &irq, FEATURES, []));
    assert!(matches!(
        none,
        Err(ActivateError::MissingQueues {
            enabled: 0,
            needed: 1
        })
    ));
    let driver = QueueDriver::new(&memory, 0, 256);
    let queue = || [driver.active_queue(FEATURES)];
    device
        .activate(activation(&memory, &irq, FEATURES, queue()))
        .unwrap();
    let twice = device.activate(activation(&memory, &irq, FEATURES, queue()));
    assert!(matches!(twice, Err(ActivateError::AlreadyActive)));
    device.stop().unwrap();
}

#[test]
fn broken_driver_is_reset_and_served_again() {
    let mut device = Blk::build(&config(), image(), None).unwrap();
    let (memory, irq) = (guest_memory(), FakeInterrupt::new());
    let features = device.spec().features;
    let mut driver = QueueDriver::new(&memory, 0, 256);
    device
        .activate(activation(
            &memory,
            &irq,
            features,
            [driver.active_queue(features)],
        ))
        .unwrap();
    driver.add(&[Part::Writable(1)]);
    driver.kick();
    assert!(irq.wait_needs_reset());
    device.stop().unwrap();
    let mut driver = QueueDriver::new(&memory, 0, 256);
    device
        .activate(activation(
            &memory,
            &irq,
            features,
            [driver.active_queue(features)],
        ))
        .unwrap();
    assert_eq!(read(&mut driver, &irq, 1), pattern(1, 1));
    device.stop().unwrap();
}

#[test]
fn endless_driver_does_not_keep_the_device_from_stopping() {
    let mut device = Blk::build(&config(), image(), None).unwrap();
    let (memory, irq) = (guest_memory(), FakeInterrupt::new());
    let features = device.spec().features;
    let mut driver = QueueDriver::new(&memory, 0, 256);
    device
        .activate(activation(
            &memory,
            &irq,
            features,
            [driver.active_queue(features)],
        ))
        .unwrap();
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = Arc::clone(&over);
    let guest = std::thread::spawn(move || {
        let mut served = 0_u32;
        while !stop.load(std::sync::atomic::Ordering::Acquire) {
            driver.add(&[Part::Readable(&header(FLUSH + 100, 0)), Part::Writable(1)]);
            driver.kick();
            while driver.take_used().is_none() {
                if stop.load(std::sync::atomic::Ordering::Acquire) {
                    return served;
                }
            }
            served += 1;
        }
        served
    });
    while irq.queue_interrupts() < 100 {
        std::thread::yield_now();
    }
    device.stop().unwrap();
    over.store(true, std::sync::atomic::Ordering::Release);
    assert!(guest.join().unwrap() >= 99);
}

#[test]
fn host_without_io_uring_gets_synchronous_calls() {
    let sync = || {
        let disk = Arc::new(RawDisk::new(image()).unwrap());
        SyncEngine::new(disk, guest_memory(), QUEUE_SIZE, Durability::OnFlush)
    };
    for errno in [libc::EPERM, libc::ENOSYS, libc::ENOMEM] {
        let uring = || Err::<UringEngine, _>(std::io::Error::from_raw_os_error(errno));
        assert_eq!(choose(Engine::Auto, uring, sync).unwrap().name(), "sync");
        let refused = choose(Engine::IoUring, uring, sync).err().unwrap();
        assert_eq!(refused.raw_os_error(), Some(errno));
    }
}

#[test]
fn cold_reads_complete_while_the_thread_sleeps() {
    const READS: u64 = 20;
    let file = image();
    for far in 1..READS {
        file.write_all_at(&pattern(far, 1), far << 20).unwrap();
    }
    file.set_len(READS << 20).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut device = Blk::build(&config(), file, None).unwrap();
    let (memory, irq) = (guest_memory(), FakeInterrupt::new());
    let mut driver = QueueDriver::new(&memory, 0, 256);
    let features = device.spec().features;
    device
        .activate(activation(
            &memory,
            &irq,
            features,
            [driver.active_queue(features)],
        ))
        .unwrap();
    let mut heads = Vec::new();
    for far in 0..READS {
        let header = header(IN, far << 11);
        heads.push(driver.add(&[
            Part::Readable(&header),
            Part::Writable(512),
            Part::Writable(1),
        ]));
    }
    driver.kick();
    for _ in 0..READS {
        driver.wait_used(&*irq).expect("every read completes");
    }
    for (far, head) in (0..READS).zip(heads) {
        assert_eq!(driver.bytes(head, 1), pattern(far, 1));
        assert_eq!(driver.bytes(head, 2), [OK]);
    }
    device.stop().unwrap();
}
