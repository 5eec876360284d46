//! The measurement's part inside the lab: boots the mini guest with every monitor in turn, and counts
//! the monitor's CPU time and KVM's exits.
//!
//! Everything that a monitor opens lies in memory: a wait for the machine's disk would count.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

use super::deadline::Deadline;
use super::exits::{ExitCounter, Reasons};
use super::monitors::{Guest, Peer, Variant, command};
use super::portable;
use crate::sys;

/// A monitor that takes longer does not get there at all.
const PATIENCE: Duration = Duration::from_secs(30);

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
    let guest = Guest::prepare(dir.path(), &args.kernel)?;
    let mut monitors = vec![Peer::slotvmm(&args.program)];
    monitors.extend(args.peers.iter().cloned());
    for monitor in &mut monitors {
        monitor.path = portable::program(&monitor.path, dir.path(), &monitor.name)?;
    }
    let own = monitors[0].clone();
    monitors.push(own.fast());
    monitors.extend(args.variants.iter().map(|variant| variant.of(&own)));
    let exits = ExitCounter::open()?;
    // The first boot of each fills caches: kernel cache, page cache.
    let mut failed: Vec<&str> = Vec::new();
    for round in 0..=args.runs {
        for monitor in &monitors {
            if failed.contains(&monitor.name.as_str()) {
                continue;
            }
            let sample = match boot(monitor, &guest, &exits) {
                Ok(sample) => sample,
                Err(error) if monitor.is_peer() => {
                    eprintln!("skipped: {}: {error:#}", monitor.name);
                    failed.push(&monitor.name);
                    continue;
                }
                Err(error) => return Err(error.context("slotvmm did not boot the guest")),
            };
            eprintln!(
                "{round}/{} {}: {:.1} ms of CPU, {} exits",
                args.runs,
                sample.monitor,
                sample.cpu_ms,
                sample.exits.values().sum::<u64>()
            );
            if round > 0 {
                println!("{}", serde_json::to_string(&sample)?);
            }
        }
    }
    Ok(0)
}

fn boot(monitor: &Peer, guest: &Guest, exits: &ExitCounter) -> Result<Sample> {
    let mut run: Command = command(monitor, guest)?;
    run.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(guest.dir.join("errors"))?);
    let before = children_cpu_ms()?;
    let counting = exits.start()?;
    let mut child = sys::die_with_parent(&mut run)
        .spawn()
        .with_context(|| format!("Cannot start {}", monitor.path.display()))?;
    let output = child.stdout.take().context("The output is lost")?;
    let deadline = Deadline::start(&child, PATIENCE);
    let mut init = None;
    let mut said = String::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        if let (None, Some(uptime)) = (&init, line.trim().strip_prefix("MINI init ")) {
            init = Some((uptime.trim().parse()?, counting.reasons()?));
        }
        said.push_str(&line);
        said.push('\n');
    }
    if deadline.end() {
        said.push_str("[killed after its time limit]");
    }
    let status = child.wait()?;
    let cpu_ms = children_cpu_ms()? - before;
    let Some((init_s, exits_to_init)) = init else {
        let errors = fs::read_to_string(guest.dir.join("errors"))?;
        bail!("{status}, and its guest never got to init: {errors}{said}");
    };
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
