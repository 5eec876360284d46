//! The part inside the lab of measuring reads: a guest reads its disk past its page cache, 4 KiB after 4 KiB,
//! with every monitor in turn; the guest's clock says for how long, and KVM how often it left.

use std::path::PathBuf;

use anyhow::{Context, Result};
use boot_bench::peer::Kind;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::exits::{ExitCounter, Reasons};
use super::follow::{follow, in_turns};
use super::monitors::{Guest, Peer};
use super::portable;

/// Size of the disk, which is read once from its beginning to its end.
const DISK_BYTES: u64 = 16 << 20;
const READ_BYTES: u64 = 4096;
const READS: u64 = DISK_BYTES / READ_BYTES;

/// What the guest says before it reads, and after, with its clock in nanoseconds.
const BEGIN: &str = "MINI reads at ";
const END: &str = "MINI has read at ";
/// That clock: `now at 1655302847 nsecs`.
const CLOCK: &str = "$(awk '/^now at/ {print $3}' /proc/timer_list)";

/// What is measured.
#[derive(Debug, Args)]
pub struct ReadsArgs {
    /// The slotvmm program.
    #[arg(long)]
    pub program: PathBuf,
    /// Directory of the kernel: vmlinux and initrd.
    #[arg(long)]
    pub kernel: PathBuf,
    /// Root of the lab's tools, which has QEMU.
    #[arg(long)]
    pub tools: PathBuf,
    /// Boots per monitor.
    #[arg(long)]
    pub runs: u32,
    /// Other monitors, as NAME=PATH.
    #[arg(long = "peer")]
    pub peers: Vec<Peer>,
}

/// The reads of one boot, printed as a line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reads {
    /// Which monitor.
    pub monitor: String,
    /// Microseconds that a read took, of all of them the mean, by the guest's clock.
    pub read_us: f64,
    /// Exits for each read.
    pub exits: f64,
    /// Of those, exits to the monitor.
    pub exits_to_monitor: f64,
}

/// Has every monitor's guest read `runs` times, in turns, and prints [`Reads`] for each.
///
/// # Errors
/// When slotvmm's guest does not read, or exits cannot be counted.
pub fn reads(args: &ReadsArgs) -> Result<u8> {
    let dir = tempfile::tempdir_in("/run").context("Cannot create a directory in memory")?;
    let guest = Guest::prepare(dir.path(), &args.kernel, DISK_BYTES)?.with_script(&script())?;
    let mut monitors = vec![Peer::slotvmm(&args.program)];
    monitors.extend(args.peers.iter().cloned());
    for monitor in &mut monitors {
        monitor.path = portable::program(&monitor.path, dir.path(), &monitor.name)?;
    }
    if !args.peers.iter().any(|peer| peer.is(Kind::Qemu)) {
        let place = portable::qemu(&args.tools, &dir.path().join("qemu.d"))?;
        let named = format!("{}={}", Kind::Qemu, place.display());
        monitors.push(named.parse()?);
    }
    let counters = [ExitCounter::open()?, ExitCounter::to_monitor()?];
    let seen = |round: u32, reads: Reads| {
        let (monitor, runs, us) = (&reads.monitor, args.runs, reads.read_us);
        eprintln!("{round}/{runs} {monitor}: {us:.1} µs for a read");
        if round > 0 {
            println!("{}", serde_json::to_string(&reads)?);
        }
        Ok(())
    };
    in_turns(
        &monitors,
        args.runs,
        |monitor| boot(monitor, &guest, &counters),
        seen,
    )?;
    Ok(0)
}

/// Reads a little first: what only the first read does is not told of.
fn script() -> String {
    let read = |count: u64| {
        format!(
            "dd if=/dev/vda of=/dev/null bs={READ_BYTES} count={count} iflag=direct 2>/dev/null"
        )
    };
    let say = |what: &str| format!("echo \"{what}{CLOCK}\"");
    [read(64), say(BEGIN), read(READS), say(END)].join(" || exit 1\n")
}

fn boot(monitor: &Peer, guest: &Guest, counters: &[ExitCounter; 2]) -> Result<Reads> {
    let mut counting = None;
    let mut counted = None;
    let ended = follow(monitor, guest, |line| {
        if let Some(from) = line.strip_prefix(BEGIN) {
            counting = Some((
                from.parse::<u64>()?,
                counters[0].start()?,
                counters[1].start()?,
            ));
        } else if let (Some(to), Some((from, all, user))) = (line.strip_prefix(END), &counting) {
            let total = |reasons: Reasons| reasons.values().sum::<u64>();
            let ns = to
                .parse::<u64>()?
                .checked_sub(*from)
                .context("The guest's clock went back")?;
            counted = Some((ns, total(all.reasons()?), total(user.reasons()?)));
        }
        Ok(())
    })?;
    let (ns, all, user) = counted.with_context(|| format!("Its guest did not read: {ended}"))?;
    let each = |total: f64| total / READS as f64;
    Ok(Reads {
        monitor: monitor.name.clone(),
        read_us: each(ns as f64 / 1e3),
        exits: each(all as f64),
        exits_to_monitor: each(user as f64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_ends_when_a_read_fails() {
        let script = script();
        assert_eq!(script.matches("|| exit 1").count(), 3);
        assert!(
            script.contains("bs=4096 count=4096 iflag=direct"),
            "{script}"
        );
    }
}
