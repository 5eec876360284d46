//! A clean stop: what lies between the end of the guest and the end of the process.
//!
//! Nothing here fails because of a time: what was measured goes to standard error as `measured: …`.

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fixture::system::{Distribution, Overlay};
use fixture::{Ended, Lab, Slot, TestVm};

/// Stops of the mini guest.
const ROUNDS: usize = 5;

/// How long the end of a process took, counted from the guest's last write.
struct Times {
    /// Until no device had anything left to do.
    stopped: Duration,
    /// Until the process was gone. A little too long: it counts from before the first instruction.
    gone: Duration,
}

/// A slot that runs with `--phases`, and the time at which its process began.
fn start(slot: &Slot) -> Result<(TestVm, Instant)> {
    let vm = TestVm::start(slot.command(&["run", "slot1", "--console", "--phases"]))?;
    Ok((vm, Instant::now()))
}

/// Has the power button pressed, and measures the end.
fn stop(slot: &Slot, (mut vm, begin): (TestVm, Instant)) -> Result<Times> {
    slot.call(&["stop", "slot1"])?.expect_code(0)?;
    let ended = vm.wait()?.expect_code(0)?;
    let whole = begin.elapsed();
    let guest = stamp(&ended, "guest ended")?;
    let stopped = stamp(&ended, "machine stopped")?;
    Ok(Times {
        stopped: stopped
            .checked_sub(guest)
            .context("It stopped before its guest")?,
        gone: whole.saturating_sub(guest),
    })
}

/// When `phase` was reached, as `--phases` prints it.
fn stamp(ended: &Ended, phase: &str) -> Result<Duration> {
    let mut lines = ended.stdout.lines();
    let times = lines.find_map(|line| line.strip_prefix(phase));
    let at = times.and_then(|times| times.split_whitespace().next());
    let at: f64 = at
        .with_context(|| format!("No {phase}: {ended:?}"))?
        .parse()?;
    Ok(Duration::from_secs_f64(at / 1000.0))
}

/// Says the least and the median, past the test harness, which shows the output of failed tests only.
fn report(guest: &str, mut times: Vec<Times>) -> Result<()> {
    let mut figures = |what: fn(&Times) -> Duration| {
        times.sort_by_key(what);
        let all: Vec<Duration> = times.iter().map(what).collect();
        format!("{:.1?} ({:.1?})", all[0], all[all.len() / 2])
    };
    let line = format!(
        "measured: {guest}, from the guest's power-off, least (median): machine stopped after {}, \
         process gone after {}\n",
        figures(|times| times.stopped),
        figures(|times| times.gone),
    );
    Ok(std::io::stderr().write_all(line.as_bytes())?)
}

/// A table for a shared directory, so that a backend has to end as well.
fn share(slot: &Slot) -> Result<String> {
    let source = slot.path("shared");
    fs::create_dir(&source)?;
    Ok(format!("[[fs]]\ntag = \"share\"\nsource = {source:?}\n"))
}

#[test]
fn process_ends_with_its_guest() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    slot.write_slot(&share(&slot)?)?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let (mut vm, begin) = start(&slot)?;
        vm.guest.wait_ready()?;
        // Something that is on its way to the disk when the end comes.
        vm.guest
            .run("dd if=/dev/zero of=/dev/vdb bs=1M count=32 2>/dev/null")?;
        times.push(stop(&slot, (vm, begin))?);
    }
    report("a mini guest", times)
}

#[test]
fn process_ends_with_a_guest_that_runs_systemd() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let overlay = Overlay::new(&slot)?;
    let text = overlay.slot_text(&lab, Distribution::Trixie)?;
    slot.write_slot(&format!("{text}{}", share(&slot)?))?;
    let (mut vm, begin) = start(&slot)?;
    vm.guest.wait_ready()?;
    vm.guest.run("systemctl start multi-user.target")?;
    report("Debian 13", vec![stop(&slot, (vm, begin))?])
}
