//! The measurement's part inside the lab: boots the mini guest with every monitor in turn, and counts
//! the monitor's CPU time and KVM's exits.
//!
//! Everything that a monitor opens lies in memory: a wait for the machine's disk would count.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

use super::exits::{ExitCounter, Reasons};
use super::follow::{follow, in_turns};
use super::monitors::{Guest, Peer, Variant};
use super::portable;

const DISK_BYTES: u64 = 16 << 20;

/// What is measured.
#[derive(Debug, Args)]
pub struct MeasureArgs {
    /// The slotvmm program.
    #[arg(long)]
    pub program: PathBuf,
    /// Directory of the kernel: vmlinux and initrd.
    #[arg(long)]
    pub kernel: PathBuf,
    /// Boots per monitor.
    #[arg(long)]
    pub runs: u32,
    /// Other monitors, as NAME=PATH.
    #[arg(long = "peer")]
    pub peers: Vec<Peer>,
    /// slotvmm again with more kernel parameters, as NAME=PARAMS.
    #[arg(long = "with")]
    pub variants: Vec<Variant>,
}

/// One boot, printed as a line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Which monitor.
    pub monitor: String,
    /// CPU time of its process from start to end, in milliseconds.
    pub cpu_ms: f64,
    /// What the guest's clock said when its init started, in seconds.
    pub init_s: f64,
    /// KVM exits until then, by reason.
    pub exits_to_init: Reasons,
    /// KVM exits until the process ended, by reason.
    pub exits: Reasons,
}

/// Boots every monitor `runs` times, in turns, and prints a [`Sample`] for each.
///
/// # Errors
/// When a boot fails or exits cannot be counted.
pub fn measure(args: &MeasureArgs) -> Result<u8> {
    let dir = tempfile::tempdir_in("/run").context("Cannot create a directory in memory")?;
    let guest = Guest::prepare(dir.path(), &args.kernel, DISK_BYTES)?;
    let mut monitors = vec![Peer::slotvmm(&args.program)];
    monitors.extend(args.peers.iter().cloned());
    for monitor in &mut monitors {
        monitor.path = portable::program(&monitor.path, dir.path(), &monitor.name)?;
    }
    let own = monitors[0].clone();
    monitors.push(own.fast());
    monitors.extend(args.variants.iter().map(|variant| variant.of(&own)));
    let exits = ExitCounter::open()?;
    let seen = |round: u32, sample: Sample| {
        let (monitor, total) = (&sample.monitor, sample.exits.values().sum::<u64>());
        let (runs, cpu_ms) = (args.runs, sample.cpu_ms);
        eprintln!("{round}/{runs} {monitor}: {cpu_ms:.1} ms of CPU, {total} exits");
        if round > 0 {
            println!("{}", serde_json::to_string(&sample)?);
        }
        Ok(())
    };
    in_turns(
        &monitors,
        args.runs,
        |monitor| boot(monitor, &guest, &exits),
        seen,
    )?;
    Ok(0)
}

fn boot(monitor: &Peer, guest: &Guest, exits: &ExitCounter) -> Result<Sample> {
    let before = children_cpu_ms()?;
    let counting = exits.start()?;
    let mut init = None;
    let ended = follow(monitor, guest, |line| {
        if let (None, Some(uptime)) = (&init, line.strip_prefix("MINI init ")) {
            init = Some((uptime.parse()?, counting.reasons()?));
        }
        Ok(())
    })?;
    let cpu_ms = children_cpu_ms()? - before;
    let (init_s, exits_to_init) =
        init.with_context(|| format!("Its guest never got to init: {ended}"))?;
    Ok(Sample {
        monitor: monitor.name.clone(),
        cpu_ms,
        init_s,
        exits_to_init,
        exits: counting.reasons()?,
    })
}

/// CPU time of all children that were waited for.
fn children_cpu_ms() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let ms =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
    Ok(ms(usage.user_time()) + ms(usage.system_time()))
}
