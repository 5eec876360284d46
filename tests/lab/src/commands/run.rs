//! `run` and `shell`: any command in the lab.

use std::ffi::OsString;

use anyhow::Result;

use super::workspace::{self, GUEST_VARIABLE};
use crate::args::MachineArgs;
use crate::cache::Cache;
use crate::guest::{IMAGES_VARIABLE, Images};
use crate::host::{Host, Job, Limits, Terminal};
use crate::tools::Tools;

/// Runs `command` in the lab and returns its exit status. `SLOTVMM_BIN` names the workspace's
/// program when it is built and the caller names no other.
///
/// # Errors
/// When the lab itself fails.
pub fn run(machine: MachineArgs, command: Vec<OsString>) -> Result<u8> {
    in_lab(machine, command, Terminal::Stream)
}

/// Opens a shell in the lab and returns its exit status.
///
/// # Errors
/// When the lab itself fails.
pub fn shell(machine: MachineArgs) -> Result<u8> {
    in_lab(machine, vec!["sh".into()], Terminal::Interactive)
}

fn in_lab(machine: MachineArgs, command: Vec<OsString>, terminal: Terminal) -> Result<u8> {
    let cache = Cache::open()?;
    let tools = Tools::ensure(&cache)?;
    let mut job = Job::new(command)?;
    if job.variable("SLOTVMM_BIN").is_none()
        && let Some(program) = workspace::program("slotvmm")?
    {
        job = job.with_variable("SLOTVMM_BIN", program.to_string_lossy());
    }
    if job.variable(GUEST_VARIABLE).is_none()
        && let Some(program) = workspace::guest_program()?
    {
        job = job.with_variable(GUEST_VARIABLE, program.to_string_lossy());
    }
    if job.variable(IMAGES_VARIABLE).is_none() {
        job = job.with_variable(
            IMAGES_VARIABLE,
            Images::existing(&cache).dir().to_string_lossy(),
        );
    }
    job.limits = Limits {
        cpus: machine.cpus,
        memory_mib: machine.mem,
        timeout: machine.timeout,
    };
    if machine.icount {
        job.count_instructions();
    }
    job.terminal = terminal;
    let host = Host::open(&cache, &tools)?;
    if machine.zfs {
        job = host.zfs()?.equip(job);
    }
    host.run(&job)
}
