//! Runs a monitor with the mini guest, and reads what the guest prints.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};

use super::deadline::Deadline;
use super::monitors::{Guest, Peer, command};
use crate::sys;

/// A monitor that takes longer does not get there at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `monitor` until its process ends, and has `see` look at each line of the guest's, as soon as it is
/// whole. Returns how it ended and what was said, for a message.
pub(super) fn follow(
    monitor: &Peer,
    guest: &Guest,
    mut see: impl FnMut(&str) -> Result<()>,
) -> Result<String> {
    let errors = guest.dir.join("errors");
    let mut run = command(monitor, guest)?;
    run.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&errors)?);
    let mut child = sys::die_with_parent(&mut run)
        .spawn()
        .with_context(|| format!("Cannot start {}", monitor.path.display()))?;
    let output = child.stdout.take().context("The output is lost")?;
    let deadline = Deadline::start(&child, PATIENCE);
    let mut said = String::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        see(line.trim())?;
        said.push_str(&line);
        said.push('\n');
    }
    if deadline.end() {
        said.push_str("[killed after its time limit]");
    }
    let status = child.wait()?;
    Ok(format!("{status}: {}{said}", fs::read_to_string(errors)?))
}

/// Runs every monitor once and then `runs` times, in turns, and has `one` boot it; what the first round
/// gives is dropped, which fills caches. A peer that fails is skipped from then on.
pub(super) fn in_turns<T>(
    monitors: &[Peer],
    runs: u32,
    mut one: impl FnMut(&Peer) -> Result<T>,
    mut seen: impl FnMut(u32, T) -> Result<()>,
) -> Result<()> {
    let mut failed: Vec<&str> = Vec::new();
    for round in 0..=runs {
        for monitor in monitors {
            if failed.contains(&monitor.name.as_str()) {
                continue;
            }
            match one(monitor) {
                Ok(value) => seen(round, value)?,
                Err(error) if monitor.is_peer() => {
                    eprintln!("skipped: {}: {error:#}", monitor.name);
                    failed.push(&monitor.name);
                }
                Err(error) => return Err(error.context("slotvmm did not boot the guest")),
            }
        }
    }
    Ok(())
}
