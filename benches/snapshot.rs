//! For how long a snapshot halts a guest: by the monitor's clock and by the guest's.
//!
//! The tiny guest reads its clock all the time, or writes to its disk all the time; snapshots of the
//! disk are taken one after the other. `SNAPSHOT_BENCH_DIR` is where the disk and its snapshots are (a
//! file system with reflinks shares blocks, others copy), `SNAPSHOT_BENCH_DIVISOR` by how much the
//! disks of 1 GiB, and of 64 GiB with 8 GiB of data, are smaller: 16 unless told, 1 for the full
//! size. `SNAPSHOT_BENCH_COUNT` snapshots are taken of each, 50 unless told. Needs `/dev/kvm`.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use benches::guest::{Guest, build_slotvmm};
use tempfile::TempDir;

/// Whatever goes wrong ends the benchmark.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// MiB of the disks, and of their data, before they are divided.
const DISKS: [(u64, u64); 2] = [(1 << 10, 1 << 10), (64 << 10, 8 << 10)];
/// What guests do, and what they say when they begin.
const WORK: [(&str, &str, &str); 2] = [
    ("clock", "reads its clock", "C"),
    ("write", "writes at random", "W"),
];

fn main() -> Outcome<()> {
    if !Path::new("/dev/kvm").exists() {
        println!("skipped: snapshot: there is no /dev/kvm");
        return Ok(());
    }
    let program = match env::var_os("BENCH_SLOTVMM") {
        Some(path) => path.into(),
        None => build_slotvmm()?,
    };
    let divisor = number("SNAPSHOT_BENCH_DIVISOR", 16)?.max(1);
    let count = number("SNAPSHOT_BENCH_COUNT", 50)?.max(1);
    println!("microseconds; min, median, 99 %, max of {count}");
    for (size, data) in DISKS {
        for work in WORK {
            let host = Host::new(&program, work.0, (size / divisor, data / divisor))?;
            host.measure(work, count)?;
        }
    }
    Ok(())
}

fn number(name: &str, usual: u64) -> Outcome<u64> {
    Ok(env::var(name).map_or(Ok(usual), |text| text.parse())?)
}

/// A host with one slot, whose guest has one disk.
struct Host {
    dir: TempDir,
    program: PathBuf,
    title: String,
}

/// A slot that runs, and its serial port.
struct Slot {
    child: Child,
    serial: BufReader<UnixStream>,
}

impl Host {
    fn new(program: &Path, work: &str, (size, data): (u64, u64)) -> Outcome<Self> {
        let dir = match env::var_os("SNAPSHOT_BENCH_DIR") {
            Some(place) => TempDir::new_in(place)?,
            None => TempDir::new()?,
        };
        let title = format!("{size} MiB, {data} MiB of data");
        let host = Self {
            dir,
            program: program.to_owned(),
            title,
        };
        let place = host.dir.path();
        fs::create_dir_all(place.join("etc/slots"))?;
        fs::create_dir(place.join("state"))?;
        let assignments = place.join("assignments.json");
        let kinds =
            ["state", "run", "cache"].map(|kind| format!("{kind}_dir = {:?}\n", place.join(kind)));
        let kinds = kinds.concat();
        fs::write(
            place.join("etc/host.toml"),
            format!("assignments = {assignments:?}\n{kinds}"),
        )?;
        let kernel = Guest::tiny()?.kernel;
        fs::write(
            place.join("etc/slots/slot1.toml"),
            format!(
                "net = []\n[machine]\nmemory = 64\n[vsock]\nenabled = false\n[boot]\n\
                 kernel = {kernel:?}\nparams = [\"tiny={work}\"]\n"
            ),
        )?;
        host.call(&["state", "create", "dev"])?;
        host.call(&["state", "assign", "slot1", "dev"])?;
        let image = fs::File::create(place.join("state/states/dev/data.img"))?;
        image.set_len(size << 20)?;
        // Spread over the whole disk, in pieces of 1 MiB.
        let piece = vec![0x5a; 1 << 20];
        for at in 0..data {
            image.write_all_at(&piece, (at * size / data.max(1)) << 20)?;
        }
        image.sync_all()?;
        Ok(host)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("SLOTVMM_CONFIG", self.dir.path().join("etc"))
            .args(arguments);
        command
    }

    fn call(&self, arguments: &[&str]) -> Outcome<Vec<u8>> {
        let output = self.command(arguments).output()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(String::from_utf8_lossy(&output.stderr).into())
    }

    fn start(&self, says: &str) -> Outcome<Slot> {
        let mut child = self
            .command(&["run", "slot1", "--ignore-cpu-check"])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        while !line.ends_with(&format!("{says}\n")) {
            if output.read_line(&mut line)? == 0 {
                return Err(format!("The guest says {line:?}").into());
            }
        }
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let serial = UnixStream::connect(self.dir.path().join("run/slot1/console.sock"))?;
        serial.set_read_timeout(Some(PATIENCE))?;
        let mut slot = Slot {
            child,
            serial: BufReader::new(serial),
        };
        // What the socket has from before ends with this line.
        let mut line = String::new();
        if says == "C" {
            while line.len() < 34 {
                line.clear();
                slot.serial.get_mut().write_all(b"?")?;
                slot.serial.read_line(&mut line)?;
            }
        }
        Ok(slot)
    }

    fn measure(&self, (work, title, says): (&str, &str, &str), count: u64) -> Outcome<()> {
        let mut slot = self.start(says)?;
        let rate = if work == "clock" {
            Some(slot.ticks_per_us()?)
        } else {
            None
        };
        let [mut pauses, mut drains, mut walls, mut gaps] = [(); 4].map(|()| Vec::new());
        let mut copied = 0;
        for _ in 0..count {
            if rate.is_some() {
                slot.clock()?;
            }
            let began = Instant::now();
            let answer = self.call(&["snapshot", "slot1", "s", "--json"])?;
            walls.push(u64::try_from(began.elapsed().as_micros())?);
            if let Some(rate) = rate {
                let gap = Duration::from_secs_f64(slot.clock()?.1 as f64 / rate / 1e6);
                gaps.push(u64::try_from(gap.as_micros())?);
            }
            let answer: serde_json::Value = serde_json::from_slice(&answer)?;
            pauses.push(answer["pause"]["total_us"].as_u64().ok_or("no pause")?);
            drains.push(answer["pause"]["drain_us"].as_u64().ok_or("no pause")?);
            copied = answer["copied_bytes"].as_u64().unwrap_or_default() >> 20;
            self.call(&["state", "delete", "dev@s", "--yes"])?;
        }
        println!("{}; the guest {title}; {copied} MiB copied", self.title);
        for (name, values) in [
            ("pause", &mut pauses),
            ("disk held before", &mut drains),
            ("guest's clock", &mut gaps),
            ("whole snapshot", &mut walls),
        ] {
            print(name, values);
        }
        Ok(())
    }
}

fn print(name: &str, values: &mut [u64]) {
    values.sort_unstable();
    let at = |share: usize| {
        let last = values.len().saturating_sub(1);
        values.get(last * share / 100).copied().unwrap_or_default()
    };
    if !values.is_empty() {
        println!(
            "  {name:<18}{:>10}{:>10}{:>10}{:>10}",
            at(0),
            at(50),
            at(99),
            at(100)
        );
    }
}

impl Slot {
    /// The guest's counter, and the longest time it saw between two readings since the last call.
    fn clock(&mut self) -> Outcome<(u64, u64)> {
        self.serial.get_mut().write_all(b"?")?;
        let mut line = String::new();
        self.serial.read_line(&mut line)?;
        let (now, gap) = line.trim().split_once(' ').ok_or("no clock")?;
        Ok((u64::from_str_radix(now, 16)?, u64::from_str_radix(gap, 16)?))
    }

    fn ticks_per_us(&mut self) -> Outcome<f64> {
        let (began, first) = (Instant::now(), self.clock()?.0);
        let mut last = (began.elapsed(), first);
        while last.0 < Duration::from_millis(500) {
            last.1 = self.clock()?.0;
            last.0 = began.elapsed();
        }
        Ok((last.1 - first) as f64 / last.0.as_micros() as f64)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
