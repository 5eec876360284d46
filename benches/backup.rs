//! What a copy of a running guest's disk costs the guest: slotvmm's snapshot beside QEMU's
//! `drive-backup`, and beside a guest that is stopped, has its disk copied with `cp`, and is started.
//!
//! The tiny guest writes 4 KiB at a time where its disk has data, and counts for how long it waits for
//! each. The contenders take turns. `BACKUP_BENCH_DIR` is where disks and copies are,
//! `BACKUP_BENCH_MIB` how many MiB of data there are, 512 unless told, on a disk of eight times as many;
//! `BACKUP_BENCH_ROUNDS` how many copies are made of each, 5 unless told. QEMU is found on the search
//! path or named by `BENCH_QEMU`. Every copy counts until it is on the host's disk. Needs `/dev/kvm`.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use benches::guest::Guest;
use benches::host::{Host, Outcome, Process, Running, Size, number, slotvmm};
use benches::monitor::find;
use benches::port::{Port, Rate, Writes};
use boot_bench::die_with_parent;
use serde_json::{Value, json};

/// For how long a guest writes undisturbed at least, to compare with.
const AT_REST: Duration = Duration::from_secs(2);

/// What the guest does: one write at a time, where data are.
const WORK: &str = "one";

/// Who copies.
enum Contender {
    Slotvmm,
    Qemu { program: PathBuf },
    StopCopyStart,
}

/// What copies cost.
#[derive(Default)]
struct Costs {
    /// How long each copy took.
    walls: Vec<Duration>,
    /// For how long the guest made no progress at most, by the clock of whoever watches.
    away: Vec<Duration>,
    at_rest: Writes,
    meanwhile: Writes,
    rate: Option<Rate>,
}

fn main() -> Outcome<()> {
    if !Path::new("/dev/kvm").exists() {
        println!("skipped: backup: there is no /dev/kvm");
        return Ok(());
    }
    let data = number("BACKUP_BENCH_MIB", 512)?.max(8);
    let rounds = number("BACKUP_BENCH_ROUNDS", 5)?.max(1);
    let place = env::var_os("BACKUP_BENCH_DIR").map(PathBuf::from);
    let host = Host::new(place.as_deref(), &slotvmm()?, WORK)?;
    host.fill(Size {
        disk: data * 8,
        data,
    })?;
    let mut contenders = vec![(Contender::Slotvmm, Costs::default())];
    match find("qemu-system-x86_64", "BENCH_QEMU") {
        Some(program) => contenders.push((Contender::Qemu { program }, Costs::default())),
        None => println!(
            "skipped: qemu: qemu-system-x86_64 is not on the search path, and BENCH_QEMU is not set"
        ),
    }
    contenders.push((Contender::StopCopyStart, Costs::default()));
    for _ in 0..rounds {
        for (contender, costs) in &mut contenders {
            contender.round(&host, costs)?;
        }
    }
    println!(
        "{data} MiB of data on a disk of {} MiB; {rounds} copies in turns",
        data * 8
    );
    println!("{:<16}{:>28}{:>38}", "", "copy, ms", "4 KiB writes, us");
    println!(
        "{:<16}{:>10}{:>10}{:>8}{:>14}{:>8}{:>8}{:>10}",
        "", "min", "median", "ratio", "", "median", "99 %", "max"
    );
    let mut base = None;
    for (contender, costs) in &mut contenders {
        costs.print(contender.name(), &mut base);
    }
    Ok(())
}

impl Contender {
    fn name(&self) -> &'static str {
        match self {
            Self::Slotvmm => "slotvmm",
            Self::Qemu { .. } => "qemu",
            Self::StopCopyStart => "stop, cp, start",
        }
    }

    /// One copy of a guest that runs, and one stretch of writes without.
    fn round(&self, host: &Host, costs: &mut Costs) -> Outcome<()> {
        match self {
            Self::Slotvmm => {
                let mut slot = host.start()?;
                costs.measure(&mut slot.port, || {
                    host.call(&["snapshot", "slot1", "s"])?;
                    Ok(())
                })?;
                host.stop(slot)?;
                host.call(&["state", "delete", "dev@s", "--yes"])?;
            }
            Self::Qemu { program } => {
                let mut qemu = Qemu::start(program, host)?;
                let copy = host.path().join("backup.img");
                let Qemu { guest, monitor } = &mut qemu;
                costs.measure(&mut guest.port, || monitor.back_up(&copy))?;
                qemu.quit()?;
                fs::remove_file(copy)?;
            }
            Self::StopCopyStart => {
                let slot = host.start()?;
                let (image, copy) = (host.image(), host.path().join("backup.img"));
                let began = Instant::now();
                host.stop(slot)?;
                let status = Command::new("cp")
                    .arg("--sparse=always")
                    .args([&image, &copy])
                    .status()?;
                if !status.success() {
                    return Err(format!("cp ended with {status}").into());
                }
                File::open(&copy)?.sync_all()?;
                costs.walls.push(began.elapsed());
                let slot = host.start()?;
                costs.away.push(began.elapsed());
                host.stop(slot)?;
                fs::remove_file(copy)?;
            }
        }
        Ok(())
    }
}

impl Costs {
    fn measure(&mut self, port: &mut Port, copy: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
        let rate = port.rate()?;
        port.report()?;
        thread::sleep(AT_REST);
        self.at_rest.add(&port.report()?.writes);
        let began = Instant::now();
        copy()?;
        self.walls.push(began.elapsed());
        self.meanwhile.add(&port.report()?.writes);
        self.rate = Some(rate);
        Ok(())
    }

    /// Prints lines of the table. `base` is the first contender's median.
    fn print(&mut self, name: &str, base: &mut Option<Duration>) {
        self.walls.sort_unstable();
        let (Some(least), Some(median)) =
            (self.walls.first(), self.walls.get(self.walls.len() / 2))
        else {
            return;
        };
        let ratio = median.as_secs_f64() / base.get_or_insert(*median).as_secs_f64();
        let (least, median) = (least.as_millis(), median.as_millis());
        print!("{name:<16}{least:>10}{median:>10}{ratio:>8.2}");
        self.away.sort_unstable();
        if let Some(away) = self.away.get(self.away.len() / 2) {
            println!("  the guest was away for {} ms", away.as_millis());
        }
        if let Some(rate) = self.rate {
            let kinds = [("at rest", &self.at_rest), ("meanwhile", &self.meanwhile)];
            for (line, (kind, writes)) in kinds.into_iter().enumerate() {
                let indent = if line == 0 { 14 } else { 58 };
                let [median, most] = [50, 99].map(|part| rate.micros(writes.percentile(part)));
                let longest = rate.micros(writes.longest);
                println!("{kind:>indent$}{median:>8}{most:>8}{longest:>10}");
            }
        }
    }
}

/// QEMU's `microvm` machine with the slot's disk, and its monitor.
struct Qemu {
    guest: Running,
    monitor: Monitor,
}

/// QEMU's machine protocol: an object for each line.
struct Monitor(BufReader<UnixStream>);

impl Qemu {
    fn start(program: &Path, host: &Host) -> Outcome<Self> {
        let socket = host.path().join("qmp");
        let _ = fs::remove_file(&socket);
        // As the boot benchmark has it, with the registers of virtio 1, and the disk as slotvmm opens it.
        let options = "-M microvm,accel=kvm,isa-serial=on,rtc=on,x-option-roms=off,pit=off,pic=off,acpi=off \
             -global virtio-mmio.force-legacy=false -smp 1 -m 64 -nodefaults -no-user-config \
             -display none -serial stdio -device virtio-blk-device,drive=disk0";
        let image = host.image();
        let mut command = Command::new(program);
        command
            .args(options.split_whitespace())
            .arg("-drive")
            .arg(format!(
                "if=none,id=disk0,format=raw,aio=io_uring,discard=unmap,file={}",
                image.display()
            ))
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", socket.display()))
            .arg("-kernel")
            .arg(Guest::tiny()?.kernel)
            .args(["-append", &format!("tiny={WORK}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = Process(die_with_parent(&mut command).spawn()?);
        let reader = process.0.stdout.take().ok_or("no output")?;
        let writer = process.0.stdin.take().ok_or("no input")?;
        let mut port = Port::new(reader, writer);
        port.wait_for("W")?;
        let stream = UnixStream::connect(&socket)?;
        let mut monitor = Monitor(BufReader::new(stream));
        monitor.call(&json!({ "execute": "qmp_capabilities" }))?;
        let guest = Running { process, port };
        Ok(Self { guest, monitor })
    }

    fn quit(mut self) -> Outcome<()> {
        self.monitor.call(&json!({ "execute": "quit" }))?;
        self.guest.process.0.wait()?;
        Ok(())
    }
}

impl Monitor {
    fn call(&mut self, command: &Value) -> Outcome<()> {
        writeln!(self.0.get_mut(), "{command}")?;
        self.wait(|said| said.get("return").is_some())?;
        Ok(())
    }

    fn wait(&mut self, wanted: impl Fn(&Value) -> bool) -> Outcome<Value> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err("QEMU has gone".into());
            }
            let said: Value = serde_json::from_str(&line)?;
            if let Some(error) = said.get("error") {
                return Err(error.to_string().into());
            }
            if wanted(&said) {
                return Ok(said);
            }
        }
    }

    /// Copies the disk as it is now to a new file.
    fn back_up(&mut self, copy: &Path) -> Outcome<()> {
        self.call(&json!({ "execute": "drive-backup", "arguments": {
            "job-id": "copy", "device": "disk0", "sync": "full", "format": "raw", "target": copy,
        } }))?;
        let ended = self.wait(|said| said["event"] == "BLOCK_JOB_COMPLETED")?;
        if ended["data"]["error"].is_string() {
            return Err(ended["data"]["error"].to_string().into());
        }
        Ok(File::open(copy)?.sync_all()?)
    }
}
