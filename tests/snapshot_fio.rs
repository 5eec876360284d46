//! Snapshots of a slot whose guest runs fio: no error, no end, no fault, and how long its writes take.

use anyhow::{Context as _, Result, ensure};
use fixture::slot::PATIENT;
use fixture::{Lab, Slot, TestVm, disk};
use serde_json::Value;

/// Snapshots of each kind; `SLOTVMM_SNAPSHOTS` says how many instead.
const SNAPSHOTS: u32 = 2;

/// Writes 4 KiB at random, eight at once, with an fsync now and then, until it is told to end. Its log
/// has a line for each write: when it was complete, in milliseconds of the guest's clock, and how many
/// nanoseconds it took.
const FIO: &str = "sh /fio/run --name=w --filename=/mnt/file --size=32m --rw=randwrite --bs=4k \
    --ioengine=libaio --iodepth=8 --direct=1 --fsync=64 --thread --time_based --runtime=1d \
    --write_lat_log=/tmp/w --log_alternate_epoch=1 --log_alternate_epoch_clock_id=1 \
    --output-format=json --output=/tmp/report >/tmp/said 2>&1 & echo $! >/tmp/pid";

/// Bytes that fio has written.
const WRITTEN: &str = "awk '/^write_bytes/ {print $2}' /proc/$(cat /tmp/pid)/io";

/// A slot with a disk that has fio.
fn slot(lab: &Lab) -> Result<Slot> {
    let fio = lab.image("programs/fio.squashfs");
    let slot = lab.slot(&format!(
        "[[disk]]\npath = {fio:?}\nposition = 2\nreadonly = true\n"
    ))?;
    slot.make_state()?;
    Ok(slot)
}

/// A guest in which fio writes.
fn busy(slot: &Slot) -> Result<TestVm> {
    let mut vm = slot.boot()?;
    vm.guest.run("load ext4 && load squashfs && mkdir /fio")?;
    vm.guest.run("mount -t squashfs -o ro /dev/vdc /fio")?;
    vm.guest.run("mount -t ext4 /dev/vdb /mnt")?;
    vm.guest.run(FIO)?;
    writes_on(&mut vm)?;
    Ok(vm)
}

/// Waits until fio has written more.
fn writes_on(vm: &mut TestVm) -> Result<()> {
    let before = vm.guest.number(WRITTEN)?;
    let more = format!("while [ $({WRITTEN}) -le {before} ]; do usleep 1000; done");
    vm.guest.run(&more).map(drop)
}

/// The guest's clock in milliseconds.
fn clock(vm: &mut TestVm) -> Result<f64> {
    let uptime = vm.guest.run("cut -d ' ' -f 1 /proc/uptime")?;
    Ok(uptime.parse::<f64>()? * 1000.0)
}

/// A snapshot that was taken while fio wrote.
struct Taken {
    /// How many were copied.
    bytes: u64,
    /// Milliseconds by the monitor's clock.
    pause_ms: f64,
    /// From the command to its end, and as much time without a snapshot.
    stretches: [(f64, f64); 2],
}

fn take(slot: &Slot, vm: &mut TestVm, name: &str) -> Result<Taken> {
    let from = clock(vm)?;
    let manifest = slot.json(&[&["snapshot", "slot1", name], &PATIENT[..]].concat())?;
    let to = clock(vm)?;
    vm.guest
        .run(&format!("usleep {:.0}", (to - from) * 1000.0))?;
    writes_on(vm)?;
    Ok(Taken {
        bytes: manifest["copied_bytes"].as_u64().context("No bytes")?,
        pause_ms: manifest["pause_us"].as_f64().context("No pause")? / 1000.0,
        stretches: [(from, to), (to, to + to - from)],
    })
}

/// Ends fio and the guest; returns the lines of fio's log, as time and latency in milliseconds.
fn end(slot: &Slot, mut vm: TestVm) -> Result<Vec<(f64, f64)>> {
    vm.guest
        .run("kill $(cat /tmp/pid); wait $(cat /tmp/pid); :")?;
    vm.guest
        .run("cp /tmp/report /tmp/w_clat.1.log /mnt && umount /mnt")?;
    assert_eq!(vm.guest.number("dmesg | grep -ci 'i/o error'; :")?, 0);
    vm.power_off()?;
    let file =
        |name| String::from_utf8(disk::ext4_file(&slot.state_image(), name)?).context("No text");
    let report = file("/report")?;
    let report: Value = serde_json::from_str(report.trim_start_matches(|c| c != '{'))?;
    let job = &report["jobs"][0];
    assert_eq!(job["error"], 0, "{job}");
    let log = file("/w_clat.1.log")?;
    let line = |line: &str| {
        let mut columns = line.split(", ").map(str::parse::<f64>);
        Some((columns.next()?.ok()?, columns.next()?.ok()? / 1e6))
    };
    let lines: Option<Vec<_>> = log.lines().map(line).collect();
    lines.context("Not the log of fio")
}

/// Median, 99th percentile and maximum.
fn told(numbers: impl Iterator<Item = f64>) -> String {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let place = (numbers.len() * percent).div_ceil(100).saturating_sub(1);
        numbers.get(place).copied().unwrap_or(f64::NAN)
    };
    format!("{:.1}, {:.1}, {:.1}", at(50), at(99), at(100))
}

/// Takes so many snapshots by `backend`.
fn take_all(slot: &Slot, vm: &mut TestVm, (backend, count): (&str, u32)) -> Result<Vec<Taken>> {
    slot.copy_by(backend)?;
    (0..count)
        .map(|number| take(slot, vm, &format!("{backend}{number}")))
        .collect()
}

/// Prints how long the guest was halted, and the longest of fio's writes in each stretch.
fn report(backend: &str, taken: &[Taken], log: &[(f64, f64)]) {
    let longest = |(from, to): (f64, f64)| {
        let within = log.iter().filter(|(at, _)| (from..to).contains(at));
        within.map(|(_, took)| *took).fold(0.0, f64::max)
    };
    let count = taken.len();
    println!("{backend}: {count} snapshots; in ms: median, 99 %, maximum");
    println!("pauses: {}", told(taken.iter().map(|it| it.pause_ms)));
    for (what, which) in [("with", 0), ("without", 1)] {
        let longest = taken.iter().map(|it| longest(it.stretches[which]));
        println!("longest write of fio {what} a snapshot: {}", told(longest));
    }
}

#[test]
fn fio_goes_on_while_its_disk_is_copied_and_shared() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab)?;
    let mut vm = busy(&slot)?;
    let count = std::env::var("SLOTVMM_SNAPSHOTS").ok();
    let count = count.map_or(Ok(SNAPSHOTS), |count| count.parse())?;
    let copied = take_all(&slot, &mut vm, ("copy", count))?;
    let shared = take_all(&slot, &mut vm, ("auto", count))?;
    ensure!(copied.iter().all(|it| it.bytes > 0), "Nothing was copied");
    let log = end(&slot, vm)?;
    println!("{} writes of fio", log.len());
    report("copy", &copied, &log);
    report("auto", &shared, &log);
    disk::check_ext4(&slot.state_image())?;
    for name in slot.snapshots() {
        slot.checked_copy(&slot.snapshot_image(&name))?;
    }
    Ok(())
}
