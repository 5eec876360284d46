//! The network card on a real tap in a network namespace: bursts of frames in each direction, from
//! the kick until the last frame is out, and from the first frame until the driver has the last.

use std::error::Error;

use benches::rig::Rig;
use criterion::{Criterion, Throughput};
use devices::device::DeviceId;
use devices::net::testing::{HOST_HEADER_BYTES, HostEnd, TapPair, TapPairError};
use devices::net::{MacAddr, Net, NetConfig};
use devices::registry::Position;
use devices::testing::{Part, QueueDriver};

/// Header that the driver puts in front of each frame.
const GUEST_HEADER_BYTES: usize = 12;
/// Frames per burst; the card moves 64 before it looks elsewhere.
const BURST: usize = 64;

/// Protocol number for local experiments, which no host answers.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    for bytes in [64, 1514] {
        match TapPair::new() {
            Ok(pair) => bench(&mut criterion, pair, bytes)?,
            Err(TapPairError::NotPermitted(reason)) => {
                println!("skipped: net/{bytes}: no tap in a fresh network namespace: {reason}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    criterion.final_summary();
    Ok(())
}

fn bench(criterion: &mut Criterion, pair: TapPair, bytes: usize) -> Result<(), Box<dyn Error>> {
    let config = NetConfig::new(
        DeviceId::new("net0"),
        Position(0),
        MacAddr([2, 0, 0, 0, 0, 1]),
    );
    let TapPair { tap, host } = pair;
    let card = Net::build(&config, vec![tap], None)?;
    let (rig, drivers) = Rig::activate(Box::new(card))?;
    let [mut rx, mut tx, _control] =
        <[QueueDriver; 3]>::try_from(drivers).map_err(|_| "a card of one pair has three queues")?;

    let mut group = criterion.benchmark_group("net");
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function(format!("tx_{BURST}_frames_of_{bytes}"), |bench| {
        bench.iter(|| transmit(&rig, &mut tx, &host, bytes));
    });
    group.bench_function(format!("rx_{BURST}_frames_of_{bytes}"), |bench| {
        bench.iter(|| receive(&rig, &mut rx, &host, bytes));
    });
    group.finish();
    Ok(())
}

fn frame(header: usize, bytes: usize) -> Vec<u8> {
    let mut frame = vec![0; header + bytes];
    frame[header..header + 6].fill(0xff);
    frame[header + 12..header + 14].copy_from_slice(&ETHERTYPE);
    frame
}

fn transmit(rig: &Rig, driver: &mut QueueDriver, host: &HostEnd, bytes: usize) {
    let frame = frame(GUEST_HEADER_BYTES, bytes);
    for _ in 0..BURST {
        driver.add(&[Part::Readable(&frame)]);
    }
    driver.kick();
    let mut received = [0; 2048];
    for _ in 0..BURST {
        let used = rig.wait(driver);
        assert!(used.is_some(), "a frame was not taken");
        let length = host.receive(&mut received);
        assert_eq!(length.ok(), Some(HOST_HEADER_BYTES + bytes));
    }
}

fn receive(rig: &Rig, driver: &mut QueueDriver, host: &HostEnd, bytes: usize) {
    for _ in 0..BURST {
        driver.add(&[Part::Writable(1536)]);
    }
    driver.kick();
    let frame = frame(HOST_HEADER_BYTES, bytes);
    for _ in 0..BURST {
        assert!(
            host.send(&frame).is_ok(),
            "the tap's queue is longer than a burst"
        );
    }
    for _ in 0..BURST {
        let used = rig.wait(driver).map(|used| used.written as usize);
        assert_eq!(used, Some(GUEST_HEADER_BYTES + bytes));
    }
}
