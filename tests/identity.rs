//! A copy of a state that is made another machine, with a guest that systemd runs.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use fixture::system::{Distribution, Overlay};
use fixture::{Lab, PATIENCE, Slot, TestVm};
use nix::sys::signal::Signal;

const UNIT: &str = "slotvmm-identity.service";

/// A slot with Debian 13 and the program for guests, whose state is `dev`.
fn slot(lab: &Lab) -> Result<Slot> {
    let slot = lab.slot("")?;
    let overlay = Overlay::new(&slot)?;
    let program = std::env::var_os("SLOTVMM_GUEST_BIN").context("SLOTVMM_GUEST_BIN is not set")?;
    overlay.program("usr/bin/slotvmm-guest", Path::new(&program))?;
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/guest");
    overlay.unit(UNIT, &fs::read_to_string(units.join(UNIT))?)?;
    overlay.want("sysinit.target", UNIT)?;
    slot.write_slot(&overlay.slot_text(lab, Distribution::Trixie)?)?;
    done(&slot, &["state", "assign", "slot1", "dev"])?;
    Ok(slot)
}

fn done(slot: &Slot, arguments: &[&str]) -> Result<()> {
    slot.call(arguments)?.expect_code(0)?;
    Ok(())
}

/// What tells the guest from others: machine id, host key, and the number that it noted.
fn identity(vm: &mut TestVm) -> Result<[String; 3]> {
    Ok([
        vm.guest.run("cat /etc/machine-id")?,
        vm.guest.run("cat /etc/ssh/ssh_host_ed25519_key.pub")?,
        vm.guest
            .run("cat /var/lib/slotvmm/identity 2>/dev/null; :")?,
    ])
}

#[test]
fn copy_becomes_another_machine_once_whoever_was_killed_before() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab)?;
    let mut vm = slot.boot()?;
    // One key of its own, whatever the image has. Others take long on an emulated machine.
    vm.guest.run("cd /etc/ssh && rm -f ssh_host_*")?;
    vm.guest
        .run("ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key")?;
    let before = identity(&mut vm)?;
    vm.guest.run("sync")?;
    vm.power_off()?;

    done(&slot, &["state", "clone", "dev", "new", "--reset-identity"])?;
    let number = fs::read_to_string(slot.path("state/states/new/reset-identity"))?;
    done(&slot, &["state", "assign", "slot1", "new"])?;
    // Killed before its init has begun.
    let mut killed = slot.start()?;
    let deadline = Instant::now() + PATIENCE;
    while slot.call(&["status", "slot1"])?.code != Some(0) {
        ensure!(
            killed.is_running()? && Instant::now() < deadline,
            "It never runs"
        );
    }
    killed.signal(Signal::SIGKILL)?;
    killed.wait()?;

    let mut vm = slot.boot()?;
    let after = identity(&mut vm)?;
    assert_eq!(after[2].trim(), number.trim());
    assert_eq!(before[2], "", "the original was told nothing");
    assert_ne!(after[0], before[0], "machine id");
    assert_ne!(after[1], before[1], "host key");
    // As at every further start.
    vm.guest.run(&format!("systemctl restart {UNIT}"))?;
    assert_eq!(identity(&mut vm)?, after);
    vm.power_off()?;
    Ok(())
}
