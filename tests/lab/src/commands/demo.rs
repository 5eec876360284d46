//! `demo`: from nothing to a login on a slot.

use std::io::{IsTerminal as _, stdin};
use std::time::Duration;

use anyhow::{Context, Result};

use super::workspace;
use crate::cache::Cache;
use crate::guest::Demo;
use crate::host::{Host, Job, Limits, Mode, Terminal};
use crate::packages::Suite;
use crate::progress::heading;
use crate::tools::Tools;

/// Builds slotvmm and a Debian guest, boots it as slot1 and logs in by ssh. Returns 0 when all of it
/// worked.
///
/// # Errors
/// When something cannot be built or the lab fails.
pub fn demo() -> Result<u8> {
    heading("slotvmm: cargo static");
    let program = workspace::build_release()?;
    let cache = Cache::open()?;
    heading("Guest: Debian 12 with systemd and an SSH server");
    let tools = Tools::ensure(&cache)?;
    let guest = Demo::ensure(&cache, &tools, Suite::Bookworm)?;
    let host = Host::open(&cache, &tools)?;
    heading(&format!(
        "Host, {}: {}",
        host.choice().mode,
        host.choice().reason
    ));
    let lab = std::env::current_exe().context("Cannot tell where the lab's program is")?;
    let mut job = Job::new([lab.into_os_string()])?;
    job.command
        .extend(["inside", "demo", "--program"].map(Into::into));
    job.command.push(program.into());
    job.command
        .extend(["--bootstrap".into(), guest.bootstrap().into()]);
    job.command.extend(["--key".into(), guest.key().into()]);
    job.limits = Limits {
        cpus: 1,
        memory_mib: 3072,
        timeout: Duration::from_secs(900),
    };
    if host.choice().mode == Mode::Direct && stdin().is_terminal() {
        job.terminal = Terminal::Interactive;
        job.limits.timeout = Duration::from_secs(24 * 60 * 60);
    }
    host.run(&job)
}
