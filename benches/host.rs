//! A host with one slot, whose guest is the tiny one and has one disk.

use std::env;
use std::error::Error;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use boot_bench::die_with_parent;
use tempfile::TempDir;

use crate::guest::{Guest, build_slotvmm};
use crate::port::Port;

/// Whatever goes wrong ends a benchmark.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// How long a guest may take to answer.
const PATIENCE: Duration = Duration::from_secs(600);

/// How large a disk is, in MiB. Its data are spread over it in pieces of 1 MiB.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// The disk.
    pub disk: u64,
    /// Its data.
    pub data: u64,
}

/// A host of its own in a directory, with the slot `slot1`, which has the state `dev`.
#[derive(Debug)]
pub struct Host {
    dir: TempDir,
    program: PathBuf,
}

/// A process that is killed when dropped.
#[derive(Debug)]
pub struct Process(pub Child);

/// A guest that runs.
#[derive(Debug)]
pub struct Running {
    /// Its process.
    pub process: Process,
    /// The guest's serial port.
    pub port: Port,
}

/// The program that `BENCH_SLOTVMM` names, else one that is built now.
///
/// # Errors
/// When it does not build.
pub fn slotvmm() -> Outcome<PathBuf> {
    match env::var_os("BENCH_SLOTVMM") {
        Some(path) => Ok(path.into()),
        None => Ok(build_slotvmm()?),
    }
}

/// A number from the environment.
///
/// # Errors
/// When the variable is no number.
pub fn number(name: &str, usual: u64) -> Outcome<u64> {
    Ok(env::var(name).map_or(Ok(usual), |text| text.parse())?)
}

impl Host {
    /// Makes a host in `place`, else where temporary files are, whose guest does `work`: what comes
    /// after `tiny=` on its command line.
    ///
    /// # Errors
    /// When a file cannot be written or the program fails.
    pub fn new(place: Option<&Path>, program: &Path, work: &str) -> Outcome<Self> {
        let dir = match place {
            Some(place) => TempDir::new_in(place)?,
            None => TempDir::new()?,
        };
        let program = program.to_owned();
        let host = Self { dir, program };
        let place = host.path();
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
        Ok(host)
    }

    /// The host's directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The slot's disk.
    pub fn image(&self) -> PathBuf {
        self.path().join("state/states/dev/data.img")
    }

    /// Makes the slot's disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn fill(&self, size: Size) -> Outcome<()> {
        let image = fs::File::create(self.image())?;
        image.set_len(size.disk << 20)?;
        let piece = vec![0x5a; 1 << 20];
        for at in 0..size.data {
            image.write_all_at(&piece, (at * size.disk / size.data) << 20)?;
        }
        Ok(image.sync_all()?)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("SLOTVMM_CONFIG", self.path().join("etc"))
            .args(arguments);
        command
    }

    /// Runs the program to its end, and returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn call(&self, arguments: &[&str]) -> Outcome<Vec<u8>> {
        let output = self.command(arguments).output()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(String::from_utf8_lossy(&output.stderr).into())
    }

    /// Starts the slot, and waits until its guest is at work and answers.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(&self) -> Outcome<Running> {
        let socket = self.path().join("run/slot1/console.sock");
        // A slot that was killed leaves one.
        let _ = fs::remove_file(&socket);
        let mut command = self.command(&["run", "slot1", "--ignore-cpu-check"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = die_with_parent(&mut command).spawn()?;
        let mut process = Process(child);
        while !socket.exists() {
            if let Some(status) = process.0.try_wait()? {
                return Err(format!("slotvmm ended with {status}").into());
            }
            thread::yield_now();
        }
        let serial = UnixStream::connect(socket)?;
        serial.set_read_timeout(Some(PATIENCE))?;
        let mut port = Port::new(serial.try_clone()?, serial);
        port.report()?;
        Ok(Running { process, port })
    }

    /// Stops the slot, whose guest knows no power button, and waits until its process is gone.
    ///
    /// # Errors
    /// When the program fails.
    pub fn stop(&self, mut slot: Running) -> Outcome<()> {
        // Its exit code says that the guest was stopped hard.
        self.command(&["stop", "slot1", "--timeout", "0"])
            .output()?;
        slot.process.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either fails only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
