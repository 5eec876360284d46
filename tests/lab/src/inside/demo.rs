//! The demo's part inside the lab: network, boot, login, console, power button.

use std::fs;
use std::io::{IsTerminal as _, stdin};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::slot::{BootTable, MachineTable, Running, SLOT, Slot, SlotFile};
use crate::progress::{heading, note};

/// Where the guest of slot1 is.
const ADDRESS: &str = "10.1.0.2";

/// Long enough for a guest whose every instruction is emulated, on a busy machine.
const LOGIN_DEADLINE: Duration = Duration::from_secs(400);
const STOP_DEADLINE: Duration = Duration::from_secs(120);

/// What the guest is asked once somebody is logged in.
const QUESTIONS: &str = "hostname; uname -sr; ip -brief address show eth0; findmnt -no SOURCE,FSTYPE /; \
                         systemctl is-system-running --wait";

/// What the demo works on.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The slotvmm program.
    #[arg(long)]
    pub program: PathBuf,
    /// The bootstrap.
    #[arg(long)]
    pub bootstrap: PathBuf,
    /// Key that logs in as root.
    #[arg(long)]
    pub key: PathBuf,
}

/// Boots slot1 and logs in.
///
/// # Errors
/// When any step fails.
pub fn demo(args: &DemoArgs) -> Result<u8> {
    let dir = tempfile::tempdir_in(scratch()).context("Cannot create a directory for the slot")?;
    let key = private_copy(&args.key, dir.path())?;
    let file = SlotFile {
        boot: BootTable {
            bootstrap: Some(args.bootstrap.clone()),
            ..BootTable::default()
        },
        machine: MachineTable {
            vcpus: Some(1),
            memory: Some(512),
        },
        data: None,
    };
    let slot = Slot::configure(&args.program, dir.path(), &file)?;
    heading("Network: slotvmm net apply slot1");
    slot.make_network()?;
    heading("Boot: slotvmm run slot1 --phases");
    let mut run = slot.command(&["run"]);
    run.arg("--phases").stdin(Stdio::null());
    let mut guest = Running::start(run)?;
    let answers = log_in(&mut guest, &key)?;
    heading(&format!("Logged in to root@{ADDRESS} over the tap"));
    // On the stream of the headings, so that the lines stay in order.
    eprintln!("{}", answers.trim_end());
    if stdin().is_terminal() {
        heading("Console: slotvmm console slot1 (Ctrl-A x leaves it)");
        slot.command(&["console"])
            .status()
            .context("Cannot start slotvmm")?;
    }
    heading("Power button: slotvmm stop slot1; then the phases of the boot");
    stop(&slot, &mut guest)?;
    Ok(0)
}

fn stop(slot: &Slot, guest: &mut Running) -> Result<()> {
    let stopped = slot
        .command(&["stop"])
        .status()
        .context("Cannot start slotvmm")?;
    let Some(ended) = guest.wait_until(Instant::now() + STOP_DEADLINE)? else {
        bail!(
            "{SLOT} did not power off within {} s",
            STOP_DEADLINE.as_secs()
        );
    };
    if !stopped.success() || !ended.success() {
        bail!("slotvmm stop {SLOT} ended with {stopped}, slotvmm run {SLOT} with {ended}");
    }
    Ok(())
}

/// Tries to log in until it works, and returns what the guest answers.
fn log_in(guest: &mut Running, key: &Path) -> Result<String> {
    let started = Instant::now();
    let mut last = String::new();
    while started.elapsed() < LOGIN_DEADLINE {
        if let Some(ended) = guest.wait_until(Instant::now() + Duration::from_millis(500))? {
            bail!("slotvmm run {SLOT} ended before anybody could log in ({ended})");
        }
        let output = ssh(key).output().context("Cannot start ssh")?;
        if output.status.success() {
            note(&format!(
                "login took {:.1} s from the start",
                started.elapsed().as_secs_f32()
            ));
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        last = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    }
    bail!(
        "No login at {ADDRESS} within {} s: {last}",
        LOGIN_DEADLINE.as_secs()
    )
}

fn ssh(key: &Path) -> Command {
    let mut ssh = Command::new("ssh");
    // The guest made its host key a moment ago, so there is nothing to compare it with.
    for option in [
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "GlobalKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
        "BatchMode=yes",
        "ConnectTimeout=5",
        "ServerAliveInterval=30",
    ] {
        ssh.args(["-o", option]);
    }
    ssh.args(["-F", "/dev/null", "-i"])
        .arg(key)
        .arg(format!("root@{ADDRESS}"))
        .arg(QUESTIONS);
    ssh.stdin(Stdio::null());
    ssh
}

/// A copy of the key that only its owner reads, as ssh demands.
fn private_copy(key: &Path, dir: &Path) -> Result<PathBuf> {
    let copy = dir.join("id");
    fs::copy(key, &copy).with_context(|| format!("Cannot copy {}", key.display()))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600))?;
    Ok(copy)
}

/// Where disks belong in the lab.
pub(super) fn scratch() -> PathBuf {
    std::env::var_os("LAB_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from)
}
