//! For how long a snapshot halts a guest: by the monitor's clock and by the guest's.
//!
//! The tiny guest reads its clock all the time, or writes to its disk all the time; snapshots of the
//! disk are taken one after the other. `SNAPSHOT_BENCH_DIR` is where the disk and its snapshots are (a
//! file system with reflinks shares blocks, others copy), `SNAPSHOT_BENCH_DIVISOR` by how much the
//! disks of 1 GiB, and of 64 GiB with 8 GiB of data, are smaller: 16 unless told, 1 for the full
//! size. `SNAPSHOT_BENCH_COUNT` snapshots are taken of each, 50 unless told. Needs `/dev/kvm`.

use std::env;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use benches::host::{Host, Outcome, Size, number, slotvmm};

/// MiB of the disks and their data before they are divided, and what guests do with each.
const DISKS: [(Size, [Work; 2]); 2] = [
    (
        Size {
            disk: 1 << 10,
            data: 1 << 10,
        },
        [CLOCK, Work("write", "writes at random")],
    ),
    (
        Size {
            disk: 64 << 10,
            data: 8 << 10,
        },
        [CLOCK, Work("data", "writes at random where data are")],
    ),
];
const CLOCK: Work = Work("clock", "reads its clock");

/// What a guest does: for the guest, and in words.
#[derive(Clone, Copy)]
struct Work(&'static str, &'static str);

fn main() -> Outcome<()> {
    if !Path::new("/dev/kvm").exists() {
        println!("skipped: snapshot: there is no /dev/kvm");
        return Ok(());
    }
    let program = slotvmm()?;
    let place = env::var_os("SNAPSHOT_BENCH_DIR").map(PathBuf::from);
    let divisor = number("SNAPSHOT_BENCH_DIVISOR", 16)?.max(1);
    let count = number("SNAPSHOT_BENCH_COUNT", 50)?.max(1);
    println!("microseconds; min, median, 99 %, max of {count}");
    for (size, works) in DISKS {
        let size = Size {
            disk: size.disk / divisor,
            data: (size.data / divisor).max(1),
        };
        for Work(work, title) in works {
            let host = Host::new(place.as_deref(), &program, work)?;
            host.fill(size)?;
            let (disk, data) = (size.disk, size.data);
            println!("{disk} MiB, {data} MiB of data; the guest {title}");
            measure(&host, count)?;
        }
    }
    Ok(())
}

fn measure(host: &Host, count: u64) -> Outcome<()> {
    let mut slot = host.start()?;
    let port = &mut slot.port;
    let rate = port.rate()?;
    let [mut pauses, mut drains, mut walls, mut gaps, mut others] = [(); 5].map(|()| Vec::new());
    let mut copied = 0;
    for _ in 0..count {
        port.report()?;
        let began = Instant::now();
        let answer = host.call(&["snapshot", "slot1", "s", "--json", "--pause-limit", "60000"])?;
        let wall = began.elapsed();
        walls.push(u64::try_from(wall.as_micros())?);
        gaps.push(u64::try_from(rate.micros(port.report()?.gap))?);
        // What the host's scheduling alone does to the guest in as much time.
        thread::sleep(wall);
        others.push(u64::try_from(rate.micros(port.report()?.gap))?);
        let answer: serde_json::Value = serde_json::from_slice(&answer)?;
        pauses.push(answer["pause"]["total_us"].as_u64().ok_or("no pause")?);
        drains.push(answer["pause"]["drain_us"].as_u64().ok_or("no pause")?);
        copied = answer["copied_bytes"].as_u64().unwrap_or_default() >> 20;
        host.call(&["state", "delete", "dev@s", "--yes"])?;
    }
    for (name, values) in [
        ("pause", &mut pauses),
        ("guest's clock", &mut gaps),
        ("  without snapshot", &mut others),
        ("disk held before", &mut drains),
        ("whole snapshot", &mut walls),
    ] {
        print(name, values);
    }
    println!("  {copied} MiB copied");
    Ok(())
}

fn print(name: &str, values: &mut [u64]) {
    values.sort_unstable();
    let at = |share: usize| {
        let last = values.len().saturating_sub(1);
        values.get(last * share / 100).copied().unwrap_or_default()
    };
    let [least, median, most, max] = [0, 50, 99, 100].map(at);
    println!("  {name:<20}{least:>10}{median:>10}{most:>10}{max:>10}");
}
