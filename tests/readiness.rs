//! When a slot is ready, as a service manager hears it, and what becomes of those that are not.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use fixture::manager::Manager;
use fixture::system::{Distribution, Overlay};
use fixture::{Lab, Slot, TestVm};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// The line in which `said` is, counted from the start.
fn line(said: &str, what: &str) -> Result<usize> {
    let found = said.lines().position(|line| line == what);
    found.with_context(|| format!("{what:?} is not in {said}"))
}

/// Names of the phases that were stamped.
fn phases(slot: &Slot) -> Result<Vec<String>> {
    let info = slot.json(&["status", "slot1"])?;
    let stamps = info["phases"].as_array().context("no phases")?.clone();
    let name = |stamp: &serde_json::Value| stamp["phase"].as_str().map(str::to_owned);
    Ok(stamps.iter().filter_map(name).collect())
}

#[test]
fn debian_13_reports_by_itself_and_says_how_it_ends() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let mut overlay = Overlay::new(&slot)?;
    // Only what systemd says tells the reboot below from a crash.
    overlay.parameter("reboot=t");
    slot.write_slot(&overlay.slot_text(&lab, Distribution::Trixie)?)?;
    let manager = Manager::new(&slot)?;
    let mut vm = TestVm::start(manager.run(&slot))?;
    vm.guest.wait_ready()?;
    manager.wait_for(0, "STATUS=ready: multi-user.target")?;
    let said = manager.heard().text();
    assert_eq!(said.matches("READY=1").count(), 1, "{said}");
    assert!(said.starts_with("EXTEND_TIMEOUT_USEC="), "{said}");
    assert!(line(&said, "STATUS=booting")? < line(&said, "READY=1")?);
    assert!(said.contains("STATUS=booting: "), "{said}");
    for foreign in ["MAINPID", "X_SYSTEMD", "STATUS=Ready."] {
        assert!(!said.contains(foreign), "{said}");
    }

    let info = slot.json(&["status", "slot1"])?;
    assert_eq!(info["readiness"]["state"], "ready");
    assert_eq!(info["cid"], 3);
    let stamped = phases(&slot)?;
    let at = |phase: &str| stamped.iter().position(|name| name == phase);
    assert!(at("init").is_some(), "{stamped:?}");
    assert!(
        at("init") < at("sysinit") && at("sysinit") < at("ready"),
        "{stamped:?}"
    );

    // A program without privileges is not heard.
    let forged = "perl -e 'socket(S,40,1,0);\
                  connect(S,pack(\"SSLLx4\",40,0,5122,2))||die \"refused: $!\\n\"' 2>&1";
    let (said, _) = vm.guest.attempt(forged)?;
    assert!(said.contains("refused: Connection reset"), "{said}");

    vm.guest.send("systemctl reboot")?;
    vm.wait()?.expect_code(10)?;
    manager.wait_for(0, "STOPPING=1")
}

#[test]
fn debian_12_reports_through_the_program_for_guests() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let overlay = Overlay::new(&slot)?;
    let program = std::env::var_os("SLOTVMM_GUEST_BIN").context("SLOTVMM_GUEST_BIN is not set")?;
    overlay.program("usr/bin/slotvmm-guest", Path::new(&program))?;
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/guest");
    let unit = "slotvmm-ready.service";
    overlay.unit(unit, &fs::read_to_string(units.join(unit))?)?;
    overlay.want("multi-user.target", unit)?;
    slot.write_slot(&overlay.slot_text(&lab, Distribution::Bookworm)?)?;
    let manager = Manager::new(&slot)?;
    let mut vm = TestVm::start(manager.run(&slot))?;
    manager.wait_for(0, "READY=1")?;
    manager.wait_for(0, "STATUS=ready: multi-user.target")?;
    slot.call(&["stop", "slot1"])?.expect_code(0)?;
    vm.wait()?.expect_code(0)?;
    manager.wait_for(0, "STOPPING=1")
}

#[test]
fn emergency_mode_fails_the_start_and_says_so() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let overlay = Overlay::new(&slot)?;
    let missing = "/dev/missing /mnt ext4 x-systemd.device-timeout=1s 0 0\n";
    overlay.put("etc/fstab", missing)?;
    slot.write_slot(&overlay.slot_text(&lab, Distribution::Trixie)?)?;
    let manager = Manager::new(&slot)?;
    let mut vm = TestVm::start(manager.run(&slot))?;
    let ended = vm.wait()?.expect_code(23)?;
    let why = "not ready: the guest is in emergency.target, see its console";
    assert!(ended.stderr.contains(&format!("slot1: {why}")), "{ended:?}");
    manager.wait_for(0, &format!("STATUS={why}"))?;
    assert!(!manager.heard().text().contains("READY=1"));
    Ok(())
}

#[test]
fn guest_that_reports_nothing_fails_the_start_in_time() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("[ready]\ntimeout = 1\n")?;
    let manager = Manager::new(&slot)?;
    let ended = TestVm::start(manager.run(&slot))?.wait()?.expect_code(23)?;
    let why = "slot1: not ready: the guest had 1 s to reach multi-user.target; it reported nothing";
    assert!(ended.stderr.contains(why), "{ended:?}");

    // Nobody waits: it goes on.
    let mut vm = slot.boot()?;
    let info = slot.json(&["status", "slot1"])?;
    assert_eq!(info["readiness"]["state"], "timed_out");
    assert_eq!(vm.guest.run("echo still here")?, "still here");
    vm.power_off()?;
    Ok(())
}

#[test]
fn port_or_text_on_the_console_is_ready_where_systemd_is_not() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("[ready]\nwhen = \"console:MINI rea\"\n")?;
    let manager = Manager::new(&slot)?;
    let mut vm = TestVm::start(manager.run(&slot))?;
    manager.wait_for(0, "READY=1")?;
    vm.guest.wait_ready()?;
    vm.power_off()?;

    slot.write_slot("[ready]\nwhen = \"tcp:7\"\n")?;
    let manager = Manager::new(&slot)?;
    let mut vm = TestVm::start(manager.run(&slot))?;
    vm.guest.wait_ready()?;
    assert!(!manager.heard().text().contains("READY=1"));
    vm.guest.run("nc -l -p 7 >/dev/null 2>&1 &")?;
    manager.wait_for(0, "READY=1")?;
    vm.power_off()?;
    Ok(())
}

#[test]
fn stopped_thread_of_a_vcpu_is_noticed_by_the_watchdog() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("[ready]\nwhen = \"none\"\n[machine]\nvcpus = 2\n")?;
    let manager = Manager::new(&slot)?;
    let mut run = manager.run(&slot);
    run.env("WATCHDOG_USEC", "3000000");
    let mut vm = TestVm::start(run)?;
    vm.guest.wait_ready()?;
    manager.wait_for(manager.heard().position(), "WATCHDOG=1")?;
    slot.call(&["pause", "slot1"])?.expect_code(0)?;
    manager.wait_for(manager.heard().position(), "WATCHDOG=1")?;
    slot.call(&["resume", "slot1"])?.expect_code(0)?;

    let thread = thread_named(vm.pid(), "vcpu1")?;
    ptrace::seize(thread, ptrace::Options::empty()).context("Cannot trace the vCPU's thread")?;
    ptrace::interrupt(thread)?;
    waitpid(thread, Some(WaitPidFlag::__WALL))?;
    vm.errors().see(0, "The thread of a vCPU does not answer")?;
    ptrace::detach(thread, None)?;
    manager.wait_for(manager.heard().position(), "WATCHDOG=1")?;
    vm.guest.wait_ready()?;
    vm.power_off()?;
    Ok(())
}

/// The thread of process `pid` that is called `name`.
fn thread_named(pid: u32, name: &str) -> Result<Pid> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        if fs::read_to_string(task.path().join("comm"))?.trim() == name {
            let id = task.file_name().to_string_lossy().parse()?;
            return Ok(Pid::from_raw(id));
        }
    }
    anyhow::bail!("Process {pid} has no thread {name}")
}
