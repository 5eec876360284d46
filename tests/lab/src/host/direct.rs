//! Running a job on this machine: in a mount, network and process namespace of its own, so that it
//! leaves nothing behind and meets nothing that is there.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::job::{Job, RESULTS_VARIABLE, Terminal};
use super::{run_dir, scratch};
use crate::cache::Cache;
use crate::process::quoted;
use crate::sys;
use crate::tools::Tools;

pub(super) fn run(cache: &Cache, tools: &Tools, job: &Job) -> Result<u8> {
    if !rustix::process::geteuid().is_root() {
        bail!("The lab runs its jobs in namespaces of their own: run it as root");
    }
    let dir = run_dir::create(cache)?;
    scratch::create(tools, &dir.path().join("scratch.img"))?;
    fs::create_dir(dir.path().join("scratch"))?;
    let mut command = namespaces(job, &script(tools, job, dir.path()));
    let mut output = job.output()?;
    if job.terminal != Terminal::Interactive {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
    }
    if job.terminal == Terminal::Quiet {
        let errors = job.errors.as_ref().map(File::create).transpose()?;
        command.stderr(errors.map_or_else(Stdio::null, Stdio::from));
    }
    let mut child = sys::die_with_parent(&mut command)
        .spawn()
        .context("Cannot start unshare")?;
    if let Some(mut pipe) = child.stdout.take() {
        io::copy(&mut pipe, &mut output).context("Cannot pass on the job's output")?;
    }
    let status = child.wait().context("Cannot wait for the job")?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX))
}

/// A command that runs `script` in new namespaces, for as long as the job may take.
fn namespaces(job: &Job, script: &str) -> Command {
    let seconds = job.limits.timeout.as_secs().to_string();
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--kill-after=5", &seconds]);
    command.args([
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    command.args(["sh", "-c", script]);
    command
}

/// The job, after what it may expect is made: scratch space in `dir` and a loopback interface.
fn script(tools: &Tools, job: &Job, dir: &Path) -> String {
    let shell = |path: &Path| quoted(&path.to_string_lossy());
    let mount = dir.join("scratch");
    let path = job.variable("PATH").unwrap_or("/usr/sbin:/usr/bin");
    let mut job = job
        .clone()
        .with_variable("PATH", format!("{path}:{}", tools.bin().display()))
        .with_variable("LAB_SCRATCH", mount.to_string_lossy())
        .with_variable("LAB_MODE", "direct");
    if let Some(results) = &job.results {
        let results = results.to_string_lossy().into_owned();
        job = job.with_variable(RESULTS_VARIABLE, results);
    }
    format!(
        "mount -o loop {} {} && {} link set lo up || exit 125\n{}",
        shell(&dir.join("scratch.img")),
        shell(&mount),
        shell(&tools.bin().join("ip")),
        job.script()
    )
}
