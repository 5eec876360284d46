//! Running a job in the emulated host: one emulator process per job, gone when the job is.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::io::{FdFlags, fcntl_setfd};

use super::job::{Job, Limits, RESULTS_VARIABLE, Terminal, Timing};
use super::l1::Image;
use super::qemu::{Channel, Machine};
use super::{run_dir, scratch};
use crate::cache::Cache;
use crate::process::{self, quoted};
use crate::progress;
use crate::sys;
use crate::tools::Tools;

/// How often the emulator is looked at. Its output does not wait for this.
const POLL: Duration = Duration::from_millis(20);

/// Status of a job that was killed at its timeout, as `timeout(1)` has it.
const TIMED_OUT: u8 = 124;

pub(super) fn run(cache: &Cache, tools: &Tools, job: &Job) -> Result<u8> {
    let image = Image::ensure(cache, tools)?;
    let run_dir = run_dir::create(cache)?;
    prepare(&image, tools, job, run_dir.path())?;
    let machine = |channel| {
        Machine {
            limits: Limits {
                memory_mib: affordable_mib(job.limits.memory_mib),
                ..job.limits
            },
            timing: job.timing,
            vmlinux: &image.kernel.vmlinux(),
            initrd: &image.initrd(),
            run_dir: run_dir.path(),
            channel,
        }
        .arguments()
    };
    let mut emulator = job.emulator.command(cache, tools)?;
    sys::die_with_parent(&mut emulator);
    let ended = match job.terminal {
        Terminal::Interactive => {
            emulator.args(machine(Channel::Terminal));
            wait(
                emulator.spawn().context("Cannot start the emulator")?,
                job.limits.timeout,
            )?
        }
        Terminal::Stream | Terminal::Quiet => {
            let (out, err) = (Stream::new()?, Stream::new()?);
            let channel = Channel::Sockets {
                out: out.number(),
                err: err.number(),
            };
            emulator.args(machine(channel)).stdin(Stdio::null());
            let child = emulator.spawn().context("Cannot start the emulator")?;
            let pumps = [out.pump(job.output()?), err.pump(job.error_output()?)];
            let ended = wait(child, job.limits.timeout);
            pumps.into_iter().for_each(|pump| drop(pump.join()));
            ended?
        }
    };
    take_results(run_dir.path(), job)?;
    verdict(ended, run_dir.path(), job)
}

/// Where the job leaves files, below the run directory.
const RESULTS: &str = "results";

/// Copies the files that the job left, however it ended.
fn take_results(run_dir: &Path, job: &Job) -> Result<()> {
    let Some(to) = &job.results else {
        return Ok(());
    };
    for entry in fs::read_dir(run_dir.join(RESULTS)).context("Cannot look for results")? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        fs::copy(entry.path(), &to).with_context(|| format!("Cannot write {}", to.display()))?;
    }
    Ok(())
}

/// `wanted`, or what this machine has when that is less: memory is taken only as it is touched.
fn affordable_mib(wanted: u32) -> u32 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match total_mib(&meminfo) {
        Some(total) if total < wanted => {
            progress::note(&format!(
                "This machine has {total} MiB: the emulated one gets no more"
            ));
            total
        }
        _ => wanted,
    }
}

fn total_mib(meminfo: &str) -> Option<u32> {
    let kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = kib.split_whitespace().next()?.parse().ok()?;
    u32::try_from(kib / 1024).ok()
}

/// How the emulator went.
enum Ended {
    Itself,
    AtTimeout,
}

fn verdict(ended: Ended, run_dir: &Path, job: &Job) -> Result<u8> {
    if matches!(ended, Ended::AtTimeout) {
        progress::note(&format!("Killed after {} s", job.limits.timeout.as_secs()));
        return Ok(TIMED_OUT);
    }
    let status = fs::read_to_string(run_dir.join("status")).unwrap_or_default();
    if let Ok(status) = status.trim().parse() {
        return Ok(status);
    }
    let console = fs::read(run_dir.join("console.log")).unwrap_or_default();
    bail!(
        "The emulated host ended without a status; its console ends with\n{}",
        process::tail(&String::from_utf8_lossy(&console), 30)
    )
}

/// Writes what the host reads from the run directory.
fn prepare(image: &Image, tools: &Tools, job: &Job, run_dir: &Path) -> Result<()> {
    let path = job.variable("PATH").unwrap_or("/usr/sbin:/usr/bin");
    let mut job = job
        .clone()
        .with_variable("PATH", format!("{path}:{}", tools.bin().display()))
        .with_variable("LAB_SCRATCH", "/mnt/lab-scratch")
        .with_variable("LAB_MODE", "emulated");
    if job.results.is_some() {
        fs::create_dir(run_dir.join(RESULTS)).context("Cannot make a directory for results")?;
        job = job.with_variable(RESULTS_VARIABLE, format!("/run/lab/{RESULTS}"));
    }
    let mut script = host_script(image, tools, &job);
    if job.timing == Timing::Instructions
        && let Some(program) = job.variable("SLOTVMM_BIN")
    {
        // A wait on the shared root makes counted time jump, so the program lies in memory.
        script = script.replace("@COPY@", &format!("cp {} /run/slotvmm", quoted(program)));
        job = job.with_variable("SLOTVMM_BIN", "/run/slotvmm");
    }
    fs::write(run_dir.join("host.sh"), script.replace("@COPY@", "true"))?;
    fs::write(run_dir.join("job.sh"), job.script())?;
    fs::copy(image.insmod_order(), run_dir.join("modules"))?;
    scratch::create(tools, &run_dir.join("scratch.img"))
}

fn host_script(image: &Image, tools: &Tools, job: &Job) -> String {
    let (terminal, stty) = match job.terminal {
        Terminal::Interactive => ("yes", terminal_size()),
        Terminal::Stream | Terminal::Quiet => ("no", String::new()),
    };
    let extra = job.modules.iter();
    let extra: Vec<String> = extra.map(|path| quoted(&path.to_string_lossy())).collect();
    [
        ("@BUSYBOX@", tools.busybox().to_string_lossy().into_owned()),
        ("@PATH@", quoted(job.variable("PATH").unwrap_or_default())),
        (
            "@MODULES@",
            image.kernel.modules_dir().to_string_lossy().into_owned(),
        ),
        (
            "@INSMOD@",
            image.insmod_dir().to_string_lossy().into_owned(),
        ),
        ("@EXTRA@", extra.join(" ")),
        ("@TERMINAL@", terminal.to_owned()),
        ("@STTY@", stty),
    ]
    .iter()
    .fold(
        include_str!("l1-host.sh").to_owned(),
        |text, (mark, value)| text.replace(mark, value),
    )
}

/// The terminal's size as `stty` takes it.
fn terminal_size() -> String {
    rustix::termios::tcgetwinsize(io::stdout()).map_or(String::new(), |size| {
        format!("rows {} cols {}", size.ws_row, size.ws_col)
    })
}

/// One of the job's output streams: our end and the emulator's.
struct Stream {
    ours: UnixStream,
    theirs: UnixStream,
}

impl Stream {
    fn new() -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("Cannot make a socket pair")?;
        fcntl_setfd(theirs.as_fd(), FdFlags::empty()).context("Cannot pass on a socket")?;
        Ok(Self { ours, theirs })
    }

    fn number(&self) -> i32 {
        self.theirs.as_raw_fd()
    }

    /// Copies what comes to `to`, as it comes, until the emulator closes its end.
    fn pump(self, mut to: impl Write + Send + 'static) -> JoinHandle<io::Result<()>> {
        let Self { mut ours, theirs } = self;
        drop(theirs);
        thread::spawn(move || {
            let mut buffer = vec![0_u8; 64 << 10];
            loop {
                let count = io::Read::read(&mut ours, &mut buffer)?;
                let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                    return Ok(());
                };
                to.write_all(bytes)?;
                to.flush()?;
            }
        })
    }
}

fn wait(mut child: Child, timeout: Duration) -> Result<Ended> {
    let deadline = Instant::now() + timeout;
    while child
        .try_wait()
        .context("Cannot wait for the emulator")?
        .is_none()
    {
        if Instant::now() >= deadline {
            child.kill().context("Cannot kill the emulator")?;
            child.wait()?;
            return Ok(Ended::AtTimeout);
        }
        thread::sleep(POLL);
    }
    Ok(Ended::Itself)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_machine_is_told() {
        assert_eq!(
            total_mib("MemTotal:       24684096 kB\nMemFree: 1 kB\n"),
            Some(24105)
        );
        assert_eq!(total_mib("nothing"), None);
    }
}
