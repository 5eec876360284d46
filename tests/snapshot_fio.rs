//! For how long snapshots halt a stock guest that is idle, then runs fio: by the monitor's clock and by
//! the guest's, and how long fio's writes take. No error, no end, no fault meanwhile.
//!
//! `SLOTVMM_SNAPSHOTS` are taken idle and as many under fio, [`SNAPSHOTS`] unless told.
//! `SLOTVMM_IMAGE_GIB` makes the image so large; `SLOTVMM_DATA_GIB` of it, as far as there is room behind
//! the guest's file system, are filled, and fio writes there instead of to a file. With
//! `SLOTVMM_GIVE_UP=1` each snapshot is given up once the guest runs on: nobody waits for copies of
//! 8 GiB. `SLOTVMM_CLOCK_MICROS` has the guest's clock read once in so many microseconds where a host of
//! one processor bears it, as one does that counts instructions.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};

use anyhow::{Context as _, Result, ensure};
use fixture::disk::{self, Kind, Mounted};
use fixture::processors::{self, Reserved};
use fixture::{Lab, Slot, TestVm};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Snapshots of an idle guest, and of a busy one.
const SNAPSHOTS: u64 = 2;

/// Bytes of the guest's file system.
const FILE_SYSTEM: u64 = 128 << 20;

/// Writes 4 KiB at random, eight at once, with an fsync now and then, until it is told to end. Its log
/// has a line for each write: when it was complete, in milliseconds of the guest's clock, and how many
/// nanoseconds it took.
const FIO: &str = "sh /fio/run --name=w --rw=randwrite --bs=4k --allow_mounted_write=1 \
    --ioengine=libaio --iodepth=8 --direct=1 --fsync=64 --thread --time_based --runtime=1d \
    --write_lat_log=/tmp/w --log_alternate_epoch=1 --log_alternate_epoch_clock_id=1 \
    --output-format=json --output=/tmp/report";

/// Bytes that fio has written.
const WRITTEN: &str = "awk '/^write_bytes/ {print $2}' /proc/$(cat /tmp/pid)/io";

/// Reads the clock.
const CLOCK: &str = "/probe/probe clock /tmp/clock";

/// Microseconds between two readings where the host has one processor, which others need as well.
const SELDOM: u64 = 10_000;

/// Ends both, with their logs on the disk.
const END: [&str; 3] = [
    "kill $(cat /tmp/pid); wait $(cat /tmp/pid); kill $(cat /tmp/reader); wait $(cat /tmp/reader); :",
    "cp /tmp/report /tmp/w_clat.1.log /tmp/clock /mnt",
    "umount /mnt",
];

/// What the environment says, or `usual`.
fn setting(name: &str, usual: u64) -> Result<u64> {
    let set = std::env::var(name).ok();
    let set = set.map_or(Ok(usual), |set| set.parse());
    set.with_context(|| format!("{name} is no number"))
}

/// What is measured.
struct Plan {
    /// Bytes of the image.
    image: u64,
    /// Bytes of data behind the guest's file system.
    data: u64,
    /// Snapshots of each kind.
    snapshots: u64,
    /// Whether they are given up.
    give_up: bool,
    /// Microseconds between two readings of the clock, where it is read often; else 0.
    clock_micros: u64,
}

impl Plan {
    fn read() -> Result<Self> {
        let image = setting("SLOTVMM_IMAGE_GIB", 0)? << 30;
        let image = image.max(FILE_SYSTEM);
        let data = setting("SLOTVMM_DATA_GIB", 0)? << 30;
        Ok(Self {
            image,
            data: data.min(image - FILE_SYSTEM),
            snapshots: setting("SLOTVMM_SNAPSHOTS", SNAPSHOTS)?,
            give_up: setting("SLOTVMM_GIVE_UP", 0)? > 0,
            clock_micros: setting("SLOTVMM_CLOCK_MICROS", 0)?,
        })
    }

    fn reads_often(&self) -> bool {
        self.clock_micros > 0
    }

    /// Where fio writes.
    fn place(&self) -> String {
        match self.data {
            0 => "--filename=/mnt/file --size=32m".to_owned(),
            data => format!("--filename=/dev/vdb --offset={FILE_SYSTEM} --size={data}"),
        }
    }

    /// Makes the state's image: a file system for the guest, then data that are no zeros, then nothing.
    fn fill(&self, slot: &Slot) -> Result<()> {
        const MIB: usize = 1 << 20;
        let path = slot.state_image();
        disk::make_ext4(&path, FILE_SYSTEM >> 20)?;
        let mut image = File::options().write(true).open(&path)?;
        image.set_len(self.image)?;
        image.seek(SeekFrom::Start(FILE_SYSTEM))?;
        let some = vec![0xa5; MIB];
        for _ in 0..self.data / (MIB as u64) {
            image.write_all(&some)?;
        }
        image.sync_all()?;
        let allocated = disk::allocated_bytes(&path)?;
        ensure!(allocated >= self.data, "Only {allocated} bytes are taken");
        println!(
            "image of {} MiB, {} MiB allocated",
            self.image >> 20,
            allocated >> 20
        );
        Ok(())
    }

    /// MiB of a file system that has room for the image and a copy.
    fn host_mib(&self) -> u64 {
        ((self.data + FILE_SYSTEM) >> 20) * 5 / 2 + 1024
    }
}

/// Has the slot two disks that have fio, and the program that reads the clock, and one vCPU for each of
/// both: nothing runs on the second one unless it is put there. Where the clock is read often in a host of
/// one processor there is one vCPU, since one would wait for the other in the guest.
fn equip(lab: &Lab, slot: &Slot, plan: &Plan) -> Result<()> {
    let fio = lab.image("programs/fio.squashfs");
    let probe = slot.path("probe.squashfs");
    lab.pack_program("SLOTVMM_PROBE_BIN", &probe)?;
    let vcpus = if plan.reads_often() { 1 } else { 2 };
    slot.write_slot(&format!(
        "[boot]\nparams = [\"isolcpus=1\"]\n[machine]\nvcpus = {vcpus}\n\
         [[disk]]\npath = {fio:?}\nposition = 2\nreadonly = true\n\
         [[disk]]\npath = {probe:?}\nposition = 3\nreadonly = true\n"
    ))?;
    slot.make_state()
}

/// A guest that has them.
fn boot(slot: &Slot) -> Result<TestVm> {
    let mut vm = TestVm::start(slot.command(&["run", "slot1", "--console", "-v"]))?;
    vm.guest.wait_ready()?;
    vm.guest
        .run("load ext4 && load squashfs && mkdir /fio /probe")?;
    vm.guest
        .run("mount -t squashfs -o ro /dev/vdc /fio && mount -t squashfs -o ro /dev/vdd /probe")?;
    vm.guest.run("mount -t ext4 /dev/vdb /mnt")?;
    Ok(vm)
}

/// Has the guest's clock be read all the time, by a vCPU that has a processor of the host for itself as
/// long as the returned value lives; or often, before all else in the guest, which is preferred to all else
/// of the host.
fn read_clock(vm: &mut TestVm, plan: &Plan) -> Result<Option<Reserved>> {
    if plan.reads_often() {
        processors::prefer(vm, "vcpu0")?;
        let often = plan.clock_micros;
        vm.guest
            .run(&format!("{CLOCK} {often} & echo $! >/tmp/reader"))?;
        vm.guest.run("renice -n -20 -p $(cat /tmp/reader)")?;
        return Ok(None);
    }
    let reserved = Reserved::for_thread(vm, "vcpu1")?;
    let sleep = reserved.as_ref().map_or(SELDOM, |_| 0);
    vm.guest
        .run(&format!("taskset 2 {CLOCK} {sleep} & echo $! >/tmp/reader"))?;
    Ok(reserved)
}

/// Has fio write, and waits until it does.
fn write(vm: &mut TestVm, place: &str) -> Result<()> {
    vm.guest.run(&format!(
        "{FIO} {place} >/tmp/said 2>&1 & echo $! >/tmp/pid"
    ))?;
    writes_on(vm)
}

/// Waits until fio has written more.
fn writes_on(vm: &mut TestVm) -> Result<()> {
    let before = vm.guest.number(WRITTEN)?;
    let more = format!("while [ $({WRITTEN}) -le {before} ]; do usleep 1000; done");
    vm.guest.run(&more).map(drop)
}

/// The guest's monotonic clock in milliseconds.
fn clock(vm: &mut TestVm) -> Result<f64> {
    let nanoseconds = vm
        .guest
        .run("awk '/^now at/ {print $3}' /proc/timer_list")?;
    Ok(nanoseconds.parse::<f64>()? / 1e6)
}

/// A snapshot that was taken.
struct Taken {
    /// Milliseconds by the monitor's clock.
    pause_ms: f64,
    /// All that the slot said of the pause.
    said: String,
    /// From the command to its end, and as much time without a snapshot.
    stretches: [(f64, f64); 2],
}

/// Takes a snapshot; returns what the slot said of the pause.
fn snapshot(slot: &Slot, vm: &TestVm, (name, give_up): (&str, bool)) -> Result<String> {
    let position = vm.errors().position();
    let mut command = slot.begin_snapshot(name, &[])?;
    let said = vm.errors().find(position, "the pause", |said| {
        let (_, facts) = said.split_once("Snapshot taken in a pause ")?;
        Some(facts.split_once('\n')?.0.to_owned())
    })?;
    if !give_up {
        command.wait()?.expect_code(0)?;
        return Ok(said);
    }
    // Shared blocks may all be in the snapshot by now.
    command.signal(Signal::SIGINT)?;
    let ended = command.wait()?;
    if ended.code == Some(0) {
        slot.call(&["state", "delete", &format!("dev@{name}"), "--yes"])?
            .expect_code(0)?;
    } else {
        ended.expect_error(1, "given up")?;
    }
    assert_eq!(slot.snapshots(), [""; 0], "after {name} was given up");
    Ok(said)
}

fn take(slot: &Slot, vm: &mut TestVm, how: (&str, bool)) -> Result<Taken> {
    let from = clock(vm)?;
    let said = snapshot(slot, vm, how)?;
    let to = clock(vm)?;
    vm.guest
        .run(&format!("usleep {:.0}", (to - from) * 1000.0))?;
    let pause = said.split(' ').find_map(|it| it.strip_prefix("total_us="));
    Ok(Taken {
        pause_ms: pause.context("No pause")?.parse::<f64>()? / 1000.0,
        said,
        stretches: [(from, to), (to, to + to - from)],
    })
}

/// Takes so many snapshots of a guest that is `busy` so.
fn take_all(slot: &Slot, vm: &mut TestVm, (busy, plan): (&str, &Plan)) -> Result<Vec<Taken>> {
    (0..plan.snapshots)
        .map(|number| take(slot, vm, (&format!("{busy}{number}"), plan.give_up)))
        .collect()
}

/// What a log says of a time, in milliseconds.
struct Entry {
    from: f64,
    to: f64,
    /// The longest write or gap in it.
    longest: f64,
}

type Log = Vec<Entry>;

/// What the guest's programs wrote down.
struct Logs {
    fio: Log,
    clock: Log,
}

/// Ends fio and the guest.
fn end(slot: &Slot, mut vm: TestVm) -> Result<Logs> {
    for line in END {
        vm.guest.run(line)?;
    }
    assert_eq!(vm.guest.number("dmesg | grep -ci 'i/o error'; :")?, 0);
    vm.power_off()?;
    let file =
        |name| String::from_utf8(disk::ext4_file(&slot.state_image(), name)?).context("No text");
    let report = file("/report")?;
    let report: Value = serde_json::from_str(report.trim_start_matches(|c| c != '{'))?;
    let job = &report["jobs"][0];
    assert_eq!(job["error"], 0, "{job}");
    Ok(Logs {
        fio: writes(&file("/w_clat.1.log")?)?,
        clock: gaps(&file("/clock")?)?,
    })
}

/// Lines of a time, a separator and a duration of which so many are a millisecond.
fn lines(text: &str, (separator, of_a_millisecond): (&str, f64)) -> Result<Vec<(f64, f64)>> {
    let line = |line: &str| {
        let mut columns = line.split(separator).map(str::parse::<f64>);
        Some((
            columns.next()?.ok()?,
            columns.next()?.ok()? / of_a_millisecond,
        ))
    };
    let lines: Option<_> = text.lines().map(line).collect();
    lines.context("Not a log")
}

/// Writes of fio's: when each was complete, and what it took.
fn writes(text: &str) -> Result<Log> {
    let writes = lines(text, (", ", 1e6))?.into_iter();
    Ok(writes
        .map(|(at, took)| Entry {
            from: at - took,
            to: at,
            longest: took,
        })
        .collect())
}

/// Gaps of the clock: each line is about the time since the one before.
fn gaps(text: &str) -> Result<Log> {
    let mut last = 0.0;
    let gaps = lines(text, (" ", 1e3))?.into_iter();
    Ok(gaps
        .map(|(at, longest)| Entry {
            from: std::mem::replace(&mut last, at),
            to: at,
            longest,
        })
        .collect())
}

/// Median, 99th percentile and maximum.
fn told(numbers: impl Iterator<Item = f64>) -> String {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let place = (numbers.len() * percent).div_ceil(100).saturating_sub(1);
        numbers.get(place).copied().unwrap_or(f64::NAN)
    };
    format!("{:.2}, {:.2}, {:.2}", at(50), at(99), at(100))
}

/// Prints how long the guest was halted, and the longest of what each log has in each stretch.
fn report(title: &str, taken: &[Taken], logs: &[(&str, &Log)]) -> Result<()> {
    let count = taken.len();
    println!("{title}: {count} snapshots; in ms: median, 99 %, maximum");
    println!("  pauses: {}", told(taken.iter().map(|it| it.pause_ms)));
    let worst = taken
        .iter()
        .max_by(|a, b| a.pause_ms.total_cmp(&b.pause_ms));
    println!("  the longest: {}", worst.context("No snapshot")?.said);
    for (name, log) in logs {
        let longest = |(from, to): (f64, f64)| {
            let within = log.iter().filter(|it| it.from < to && it.to > from);
            within.map(|it| it.longest).fold(0.0, f64::max)
        };
        for (what, which) in [("with", 0), ("without", 1)] {
            let longest = taken.iter().map(|it| longest(it.stretches[which]));
            println!("  {name} {what} a snapshot: {}", told(longest));
        }
    }
    Ok(())
}

fn pauses(kind: Kind) -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let (slot, plan) = (lab.slot("")?, Plan::read()?);
    let file = slot.path("host.img");
    let host = (file.as_path(), plan.host_mib());
    let Some(_mounted) = Mounted::of_kind(kind, host, &slot.path("state"))? else {
        return Ok(());
    };
    equip(&lab, &slot, &plan)?;
    plan.fill(&slot)?;
    let mut vm = boot(&slot)?;
    let _reserved = read_clock(&mut vm, &plan)?;
    let idle = take_all(&slot, &mut vm, ("idle", &plan))?;
    write(&mut vm, &plan.place())?;
    let busy = take_all(&slot, &mut vm, ("fio", &plan))?;
    writes_on(&mut vm)?;
    let Logs { fio, clock } = end(&slot, vm)?;
    println!("{} writes of fio", fio.len());
    let clock = ("longest gap of the guest's clock", &clock);
    report(&format!("{kind:?}, idle"), &idle, &[clock])?;
    let fio = ("longest write of fio", &fio);
    report(&format!("{kind:?}, fio"), &busy, &[clock, fio])?;
    disk::check_ext4(&slot.state_image())?;
    for name in slot.snapshots() {
        slot.checked_copy(&slot.snapshot_image(&name))?;
    }
    Ok(())
}

#[test]
fn a_guest_goes_on_while_its_disk_is_copied() -> Result<()> {
    pauses(Kind::Ext4)
}

#[test]
fn a_guest_goes_on_while_its_disk_is_shared() -> Result<()> {
    pauses(Kind::Xfs)
}
