//! Running a job on this machine: in a mount, network and process namespace of its own, so that it
//! leaves nothing behind and meets nothing that is there.

use std::fs::File;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::job::{Job, Terminal};
use crate::cache::Cache;
use crate::process::{self, quoted};
use crate::sys;
use crate::tools::Tools;

const SCRATCH_BYTES: u64 = 32 << 30;

pub(super) fn run(cache: &Cache, tools: &Tools, job: &Job) -> Result<u8> {
    if !rustix::process::geteuid().is_root() {
        bail!("The lab runs its jobs in namespaces of their own: run it as root");
    }
    let dir =
        tempfile::tempdir_in(cache.root()).context("Cannot create a directory for the run")?;
    let scratch = dir.path().join("scratch.img");
    File::create(&scratch)?.set_len(SCRATCH_BYTES)?;
    process::output(
        tools
            .command("mkfs.xfs")
            .args(["-q", "-m", "reflink=1"])
            .arg(&scratch),
    )?;
    let mount = dir.path().join("scratch");
    std::fs::create_dir(&mount)?;
    let path = format!(
        "{}:{}",
        job.variable("PATH").unwrap_or("/usr/sbin:/usr/bin"),
        tools.bin().display()
    );
    let job = job
        .clone()
        .with_variable("PATH", path)
        .with_variable("LAB_SCRATCH", mount.to_string_lossy())
        .with_variable("LAB_MODE", "direct");
    let script = format!(
        "mount -o loop {} {} && {} link set lo up || exit 125\n{}",
        quoted(&scratch.to_string_lossy()),
        quoted(&mount.to_string_lossy()),
        quoted(&tools.bin().join("ip").to_string_lossy()),
        job.script()
    );
    let mut command = Command::new("timeout");
    command
        .arg("--foreground")
        .args(["--kill-after=5", &job.limits.timeout.as_secs().to_string()]);
    command.args([
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    command.args(["sh", "-c", &script]);
    if job.terminal == Terminal::Stream {
        command.stdin(Stdio::null());
    }
    let status = sys::die_with_parent(&mut command)
        .status()
        .context("Cannot start unshare")?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(255))
}
