//! For how long a snapshot halts a guest: by the monitor's clock and by the guest's.
//!
//! The tiny guest reads its clock all the time, or writes to its disk all the time; snapshots of the
//! disk are taken one after the other. `SNAPSHOT_BENCH_DIR` is where the disk and its snapshots are (a
//! file system with reflinks shares blocks, others copy), `SNAPSHOT_BENCH_DIVISOR` by how much the
//! disks of 1 GiB, and of 64 GiB with 8 GiB of data, are smaller: 16 unless told, 1 for the full
//! size. `SNAPSHOT_BENCH_COUNT` snapshots are taken of each, 50 unless told. With
//! `SNAPSHOT_BENCH_GIVE_UP=1` each is given up once the guest runs on: the pause is measured, and
//! nobody waits for copies. Needs `/dev/kvm`.
//!
//! The guest's clock is looked at from the request to the guest's running on, and in as much time
//! without a snapshot after each: the difference is what snapshots do.

use std::env;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use benches::host::{Host, Outcome, Size, number, slotvmm};
use benches::order::Order;
use benches::port::Port;

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
    let end = match number("SNAPSHOT_BENCH_GIVE_UP", 0)? {
        0 => End::Done,
        _ => End::GivenUp,
    };
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
            measure(&host, count, end)?;
        }
    }
    Ok(())
}

/// What becomes of a snapshot once the guest runs on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is made.
    Done,
    /// It is given up.
    GivenUp,
}

/// What snapshots took, in microseconds.
#[derive(Default)]
struct Times {
    pauses: Vec<u64>,
    drains: Vec<u64>,
    walls: Vec<u64>,
    /// The longest time between two readings of the guest's clock, and the same without a snapshot.
    gaps: Vec<u64>,
    gaps_without: Vec<u64>,
    copied_mib: u64,
}

fn measure(host: &Host, count: u64, end: End) -> Outcome<()> {
    let mut slot = host.start()?;
    let port = &mut slot.port;
    let rate = port.rate()?;
    let gap =
        |port: &mut Port| -> Outcome<u64> { Ok(u64::try_from(rate.micros(port.report()?.gap))?) };
    let mut times = Times::default();
    let target = host.path().join("snapshot.img");
    let socket = host.path().join("run/slot1/control.sock");
    for _ in 0..count {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&target)?;
        port.report()?;
        let began = Instant::now();
        let mut order = Order::place(&socket, &file)?;
        let pause = order.wait_taken()?;
        let until_taken = began.elapsed();
        times.gaps.push(gap(port)?);
        times.pauses.push(pause.total_us);
        times.drains.push(pause.drain_us);
        match end {
            End::Done => times.copied_mib = order.wait_done()? >> 20,
            End::GivenUp => order.give_up()?,
        }
        times
            .walls
            .push(u64::try_from(began.elapsed().as_micros())?);
        fs::remove_file(&target)?;
        // What the host alone does to the guest in as much time.
        port.report()?;
        thread::sleep(until_taken);
        times.gaps_without.push(gap(port)?);
    }
    times.print(end)
}

impl Times {
    fn print(mut self, end: End) -> Outcome<()> {
        print("pause", &mut self.pauses);
        let with = print("guest's clock", &mut self.gaps);
        let without = print("  without snapshot", &mut self.gaps_without);
        print!("  {:<20}", "  difference");
        for (with, without) in with.into_iter().zip(without) {
            print!("{:>10}", i64::try_from(with)? - i64::try_from(without)?);
        }
        println!();
        print("disk held before", &mut self.drains);
        if end == End::GivenUp {
            println!("  given up once the guest ran on");
            return Ok(());
        }
        print("whole snapshot", &mut self.walls);
        println!("  {} MiB copied", self.copied_mib);
        Ok(())
    }
}

/// Prints the least, the median, what 99 % have at most and the most, and returns them.
fn print(name: &str, values: &mut [u64]) -> [u64; 4] {
    values.sort_unstable();
    let at = |share: usize| {
        let last = values.len().saturating_sub(1);
        values.get(last * share / 100).copied().unwrap_or_default()
    };
    let found = [0, 50, 99, 100].map(at);
    let [least, median, most, max] = found;
    println!("  {name:<20}{least:>10}{median:>10}{most:>10}{max:>10}");
    found
}
