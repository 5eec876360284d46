//! Requests of a driver for entropy, through the whole device: from the kick until the answer is there.

use std::error::Error;

use benches::rig::Rig;
use criterion::{Criterion, Throughput};
use devices::device::DeviceId;
use devices::registry::Position;
use devices::rng::{Rng, RngConfig};
use devices::testing::Part;

/// What Linux asks for while it boots, and a page.
const BYTES: [u32; 2] = [64, 4096];

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    let config = RngConfig {
        id: DeviceId::new("rng0"),
        position: Position(0),
    };
    let (rig, mut drivers) = Rig::activate(Box::new(Rng::build(&config, None)?))?;
    let driver = drivers.first_mut().ok_or("the device has a queue")?;
    let mut group = criterion.benchmark_group("rng");
    for bytes in BYTES {
        group.throughput(Throughput::Bytes(bytes.into()));
        group.bench_function(format!("request_{bytes}"), |bench| {
            bench.iter(|| {
                driver.add(&[Part::Writable(bytes)]);
                driver.kick();
                let used = rig.wait(driver);
                assert!(used.is_some(), "a request was not answered");
            });
        });
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
