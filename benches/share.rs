//! What a shared directory costs a boot: the time until its backend answers, from just before its
//! process is started, and whole boots without and with a share, in turn.
//!
//! Boots need `/dev/kvm`. `BENCH_SLOTVMM` names another build.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use benches::guest::Guest;
use benches::monitor::Monitor;
use benches::race::boot;
use devices::vhost_user::{Connect, Connection};

/// Rounds; each measure has a sample in every one.
const ROUNDS: usize = 40;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = benches::Place::new()?;
    let shared = dir.path().join("shared");
    fs::create_dir(&shared)?;
    let [monitor, _] = Monitor::slotvmm()?;
    // The guest ignores it; a list of parameters wants one.
    let guest = Guest {
        params: "quiet",
        ..Guest::tiny()?
    };
    let plain = monitor.command(&guest, &directory(dir.path(), "plain")?)?;
    let share = directory(dir.path(), "share")?;
    let sharing = monitor.command(&guest, &share)?;
    fs::OpenOptions::new()
        .append(true)
        .open(share.join("etc/slots/tiny.toml"))?
        .write_all(format!("[[fs]]\ntag = \"share\"\nsource = {shared:?}\n").as_bytes())?;
    let program = Path::new(plain.first().ok_or("no program")?);

    let mut ready = Vec::new();
    for _ in 0..ROUNDS {
        ready.push(backend_ready(program, &shared, dir.path())?);
    }
    report("backend started to ready", ready);
    if !Path::new("/dev/kvm").exists() {
        println!("skipped: boots: there is no /dev/kvm");
        return Ok(());
    }
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(boot(&plain)?.first_instruction);
        with.push(boot(&sharing)?.first_instruction);
    }
    report("first instruction without a share", without);
    report("first instruction with a share", with);
    Ok(())
}

fn directory(parent: &Path, name: &str) -> io::Result<std::path::PathBuf> {
    let path = parent.join(name);
    fs::create_dir(&path)?;
    Ok(path)
}

/// Starts a backend as `slotvmm run` does, and waits until it has agreed on the protocol.
fn backend_ready(program: &Path, source: &Path, place: &Path) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    let mut arguments: Vec<OsString> = ["fs-backend", "--fd=0", "--source"].map(Into::into).into();
    arguments.push(source.into());
    let mut spawned = fs_backend::spawn(program, arguments, place)?;
    let mut once = Once(Some(spawned.connection));
    let connection = Connection::open(&mut once, None)?;
    let ready = start.elapsed();
    drop(connection);
    spawned.child.wait()?;
    Ok(ready)
}

/// A connection that is there already.
#[derive(Debug)]
struct Once(Option<UnixStream>);

impl Connect for Once {
    fn connect(&mut self) -> io::Result<UnixStream> {
        self.0
            .take()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// Prints the least and the median of `samples`.
fn report(what: &str, mut samples: Vec<Duration>) {
    samples.sort();
    let ms = |at: usize| samples.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    println!(
        "{what:<36} min {:>7.2} ms  median {:>7.2} ms",
        ms(0),
        ms(samples.len() / 2)
    );
}
