//! The units that come with slotvmm, under a real systemd: what they start, how a slot ends for
//! systemd, and what is left then.

use std::fs;
use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use fixture::systemd::{Files, SystemdHost};
use fixture::{Lab, PATIENCE, guest::Guest};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

const UNIT: &str = "slotvmm@slot1.service";

/// Its other name, once it is enabled.
const ALIAS: &str = "microvm@slot1.service";

/// Most that `systemd-analyze security` may find exposed, in tenths.
const EXPOSURE: &str = "--threshold=15";

/// What docs/systemd.md has for backends that are to make namespaces.
const NAMESPACES: &str = "[Service]\n\
    RestrictNamespaces=user mnt pid net ipc uts cgroup\n\
    SystemCallFilter=@mount capset\n";

/// A slot that is ready when its guest takes commands.
const SLOT: &str = "[ready]\nwhen = \"console:MINI ready\"\n";

fn boot(lab: &Lab) -> Result<SystemdHost> {
    Files::new(lab, SLOT)?.boot()
}

/// The slot's guest, once it takes commands.
fn guest(host: &SystemdHost) -> Result<Guest> {
    let mut guest = host.console("slot1")?;
    guest.wait_ready()?;
    Ok(guest)
}

/// Fails when anything of the slot is still there.
fn expect_nothing_left(host: &SystemdHost) -> Result<()> {
    let group = host.path("sys/fs/cgroup/system.slice/system-slotvmm.slice");
    let processes = fs::read_to_string(group.join(UNIT).join("cgroup.procs"));
    assert_eq!(processes.unwrap_or_default(), "");
    assert!(!host.path("run/slotvmm/slot1").exists());
    assert_eq!(host.run(&["pgrep", "-c", "slotvmm"]).ok(), None);
    let locks = fs::read_to_string("/proc/locks").context("Cannot read the locks")?;
    assert!(!locks.contains("OFDLCK"), "{locks}");
    let mounts = fs::read_to_string(host.path("proc/1/mounts"))?;
    assert!(!mounts.contains("slot1"), "{mounts}");
    Ok(())
}

#[test]
fn units_are_well_formed_and_confined() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let host = boot(&lab)?;
    for unit in [
        UNIT,
        "slotvmm-net@slot1.service",
        "slotvmm-net.service",
        "slotvmm.target",
    ] {
        let ended = host.call(&["systemd-analyze", "verify", "--man=no", unit])?;
        assert_eq!((ended.code, ended.stderr.trim()), (Some(0), ""), "{unit}");
    }
    let file = "/etc/systemd/system/slotvmm@.service";
    let analyze = ["systemd-analyze", "security", "--offline=true", EXPOSURE];
    let report = host.run(&[&analyze[..], &[file]].concat())?;
    println!("{}", report.lines().last().unwrap_or_default());
    Ok(())
}

#[test]
fn network_comes_and_goes_with_its_unit() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let host = boot(&lab)?;
    host.run(&["systemctl", "start", "slotvmm-net.service"])?;
    host.run(&["ip", "link", "show", "dev", "br-slot1"])?;
    let tap = host.run(&["ip", "-details", "link", "show", "dev", "vm-slot1"])?;
    assert!(tap.contains("master br-slot1"), "{tap}");
    assert!(host.run(&["nft", "list", "tables"])?.contains("slotvmm"));

    host.run(&["systemctl", "stop", "slotvmm-net.service"])?;
    let links = host.run(&["ip", "link"])?;
    assert!(!links.contains("slot1"), "{links}");
    assert_eq!(host.run(&["nft", "list", "tables"])?, "");
    Ok(())
}

#[test]
fn stop_shuts_the_guest_down_and_leaves_nothing() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let host = boot(&lab)?;
    host.run(&["systemctl", "start", UNIT])?;
    // It is ready when the command returns.
    let console = host.console("slot1")?;
    assert!(console.screen().see(0, "MINI ready").is_ok());
    assert_eq!(host.property(UNIT, "ActiveState")?, "active");
    let process = host.property(UNIT, "MainPID")?;
    let status = fs::read_to_string(host.path(&format!("proc/{process}/status")))?;
    let field = |name: &str| status.lines().find(|line| line.starts_with(name));
    assert_eq!(field("CapEff:"), Some("CapEff:\t0000000000000000"));
    assert_eq!(field("NoNewPrivs:"), Some("NoNewPrivs:\t1"));
    assert_ne!(field("Uid:"), Some("Uid:\t0\t0\t0\t0"));

    host.run(&["systemctl", "stop", UNIT])?;
    assert_eq!(host.property(UNIT, "ActiveState")?, "inactive");
    assert_eq!(host.property(UNIT, "Result")?, "success");
    assert_eq!(host.property(UNIT, "ExecMainStatus")?, "0");
    expect_nothing_left(&host)
}

#[test]
fn powered_off_guest_stays_off_and_rebooted_one_comes_back() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let host = boot(&lab)?;
    host.run(&["systemctl", "start", UNIT])?;
    let first = host.property(UNIT, "MainPID")?;
    guest(&host)?.send("reboot -f")?;
    host.wait_property(UNIT, ("NRestarts", "1"))?;
    host.wait_property(UNIT, ("ActiveState", "active"))?;
    assert_ne!(host.property(UNIT, "MainPID")?, first);

    guest(&host)?.send("sync; poweroff -f")?;
    host.wait_property(UNIT, ("ActiveState", "inactive"))?;
    assert_eq!(host.property(UNIT, "Result")?, "success");
    assert_eq!(host.property(UNIT, "NRestarts")?, "1");
    expect_nothing_left(&host)
}

#[test]
fn guest_that_panics_fails_its_start() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = "[boot]\nparams = [\"mini.then=panic\"]\n[ready]\nwhen = \"console:never\"\n";
    let host = Files::new(&lab, slot)?;
    host.write(
        "etc/systemd/system/slotvmm@.service.d/once.conf",
        "[Service]\nRestart=no\n",
    )?;
    let host = host.boot()?;
    let failed = host.call(&["slotvmm", "start", "slot1"])?;
    failed.expect_error(20, "Failed to start slot1: it ended with exit code 20")?;
    assert_eq!(host.property(UNIT, "ActiveState")?, "failed");
    Ok(())
}

#[test]
fn stopped_vcpu_thread_is_noticed_and_the_unit_restarted() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let files = Files::new(&lab, SLOT)?;
    files.write(
        "etc/systemd/system/slotvmm@.service.d/watchdog.conf",
        "[Service]\nWatchdogSec=10\n",
    )?;
    let host = files.boot()?;
    host.run(&["systemctl", "start", UNIT])?;
    let first = host.property(UNIT, "MainPID")?;
    let thread = host.thread("vcpu0")?;
    // A debugger stops one thread; any signal that stops would stop all of them.
    ptrace::seize(thread, ptrace::Options::empty()).context("Cannot trace the thread")?;
    ptrace::interrupt(thread).context("Cannot stop the thread")?;
    // A process whose thread is traced has not ended before whoever traces it has seen the end.
    let deadline = Instant::now() + PATIENCE;
    while !matches!(
        waitpid(thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG))?,
        WaitStatus::Signaled(_, Signal::SIGKILL, _)
    ) {
        ensure!(Instant::now() < deadline, "The watchdog does not bite");
        host.property(UNIT, "SubState")?;
    }
    host.wait_property(UNIT, ("NRestarts", "1"))?;
    host.wait_property(UNIT, ("ActiveState", "active"))?;
    assert_ne!(host.property(UNIT, "MainPID")?, first);
    let log = host.run(&["journalctl", "--unit", UNIT, "--output=cat"])?;
    assert!(log.contains("Watchdog timeout"), "{log}");
    Ok(())
}

#[test]
fn wrong_configuration_is_not_tried_again() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let host = Files::new(&lab, "[machine]\nmemroy = 1\n")?.boot()?;
    let refused = host.call(&["slotvmm", "start", "slot1"])?;
    refused.expect_error(30, "Failed to start slot1: it ended with exit code 30")?;
    assert_eq!(host.property(UNIT, "ActiveState")?, "failed");
    assert_eq!(host.property(UNIT, "ExecMainStatus")?, "30");
    assert_eq!(host.property(UNIT, "NRestarts")?, "0");
    let log = host.run(&["journalctl", "--unit", UNIT, "--output=cat"])?;
    assert!(log.contains("memroy"), "{log}");
    Ok(())
}

#[test]
fn verbs_go_through_the_unit() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let host = boot(&lab)?;
    host.run(&["slotvmm", "start", "slot1"])?;
    guest(&host)?;
    assert_eq!(host.property(UNIT, "ActiveState")?, "active");
    let first = host.property(UNIT, "MainPID")?;
    let log = host.run(&["slotvmm", "logs", "slot1"])?;
    assert!(log.contains("MINI ready"), "{log}");

    host.run(&["slotvmm", "restart", "slot1"])?;
    guest(&host)?;
    assert_ne!(host.property(UNIT, "MainPID")?, first);
    host.run(&["slotvmm", "stop", "slot1"])?;
    host.wait_property(UNIT, ("ActiveState", "inactive"))?;
    assert_eq!(host.property(UNIT, "Result")?, "success");
    assert_eq!(host.property(UNIT, "NRestarts")?, "0");
    expect_nothing_left(&host)?;

    // A slot that someone runs by hand is not systemd's to start.
    let mut by_hand = host.command(&["slotvmm", "run", "slot1"]).spawn()?;
    let mut console = host.console("slot1")?;
    console.wait_ready()?;
    let refused = host.call(&["slotvmm", "start", "slot1"])?;
    refused.expect_error(32, "which systemd did not start")?;
    host.run(&["slotvmm", "stop", "slot1"])?;
    assert!(by_hand.wait()?.success());
    Ok(())
}

#[test]
fn alias_is_the_same_unit() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let host = boot(&lab)?;
    host.run(&["systemctl", "enable", UNIT])?;
    host.run(&["systemctl", "start", ALIAS])?;
    guest(&host)?;
    assert_eq!(host.property(UNIT, "ActiveState")?, "active");
    assert_eq!(
        host.property(ALIAS, "MainPID")?,
        host.property(UNIT, "MainPID")?
    );
    host.run(&["systemctl", "stop", ALIAS])?;
    assert_eq!(host.property(UNIT, "Result")?, "success");
    expect_nothing_left(&host)
}

#[test]
fn backend_of_a_share_serves_inside_the_unit() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let share = "[[fs]]\ntag = \"share\"\nsource = \"/srv/share\"\n";
    let host = Files::new(&lab, &format!("{SLOT}{share}"))?;
    host.write("srv/share/file", "from the host\n")?;
    let host = host.boot()?;
    // Lines of the log that say that namespaces were refused, and whether there are some.
    let read = |lines: usize| {
        host.run(&["systemctl", "start", UNIT])?;
        let mut guest = guest(&host)?;
        guest.run("load virtiofs")?;
        guest.run("mount -t virtiofs -o ro share /mnt")?;
        assert_eq!(guest.run("cat /mnt/file")?, "from the host");
        let log = host.run(&["journalctl", "--unit", UNIT, "--output=cat"])?;
        let refused = log.matches("Landlock and seccomp have to do").count();
        assert_eq!(refused, lines, "{log}");
        let pid = host.property(UNIT, "MainPID")?;
        let backend = host.run(&["pgrep", "--parent", &pid])?;
        let namespace = |pid: &str| fs::read_link(host.path(&format!("proc/{pid}/ns/mnt")));
        let differ = namespace(backend.trim())? != namespace(&pid)?;
        host.run(&["systemctl", "stop", UNIT])?;
        assert_eq!(host.property(UNIT, "Result")?, "success");
        expect_nothing_left(&host)?;
        anyhow::Ok(differ)
    };
    assert!(!read(1)?);
    let drop_in = host.path(&format!("etc/systemd/system/{UNIT}.d"));
    fs::create_dir(&drop_in)?;
    fs::write(drop_in.join("namespaces.conf"), NAMESPACES)?;
    host.run(&["systemctl", "daemon-reload"])?;
    assert!(read(1)?, "namespaces of its own");
    Ok(())
}

#[test]
fn start_returns_when_debian_is_ready_and_stop_when_it_is_down() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = "[boot]\nbootstrap = \"/lab/trixie.squashfs\"\n[machine]\nmemory = 512\n";
    let mut host = Files::new(&lab, slot)?;
    host.bind(&lab.image("demo/trixie.squashfs"), "trixie.squashfs")?;
    let host = host.boot()?;
    host.run(&["systemctl", "start", UNIT])?;
    // It may be past the target that was waited for already.
    let status = host.property(UNIT, "StatusText")?;
    assert!(status.starts_with("ready: "), "{status}");

    host.run(&["systemctl", "stop", UNIT])?;
    assert_eq!(host.property(UNIT, "Result")?, "success");
    assert_eq!(host.property(UNIT, "ExecMainStatus")?, "0");
    expect_nothing_left(&host)
}

/// Starts and stops, `LAB_UNIT_CYCLES` times.
#[test]
fn cycles_leave_nothing() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let cycles = std::env::var("LAB_UNIT_CYCLES").map_or(Ok(3), |text| text.parse::<u32>())?;
    let host = boot(&lab)?;
    for cycle in 1..=cycles {
        host.run(&["systemctl", "start", UNIT])?;
        guest(&host)?;
        host.run(&["systemctl", "stop", UNIT])?;
        assert_eq!(host.property(UNIT, "Result")?, "success");
        expect_nothing_left(&host)?;
        // Or systemd leaves alone what is started so often.
        host.run(&["systemctl", "reset-failed", UNIT])?;
        // Past the test harness, because many of them take long.
        if cycle % 10 == 0 {
            writeln!(std::io::stderr(), "{cycle} cycles")?;
        }
    }
    Ok(())
}
