//! Snapshots of running slots: what they hold, and that the guest does not notice.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use fixture::slot::PATIENT;
use fixture::{Ended, Lab, Slot, TestVm, disk};
use nix::sys::signal::Signal;

/// Snapshots of one guest in a row; `SLOTVMM_SNAPSHOTS` says how many instead.
const SNAPSHOTS: u32 = 6;

/// Appends numbers to a file, each acknowledged once it is on the disk.
const WRITER: [&str; 3] = [
    "echo 'i=0; while :; do i=$((i+1)); echo $i >>/mnt/log; sync' >/tmp/w",
    "echo 'echo $i >/tmp/a.new; mv /tmp/a.new /tmp/acked; done' >>/tmp/w",
    "sh /tmp/w & :",
];

/// Overwrites, frees and allocates blocks all the time.
const NOISE: [&str; 4] = [
    "echo 'while :; do dd if=/dev/urandom of=/mnt/noise bs=64k count=48' >/tmp/n",
    "echo 'sync; fstrim /mnt' >>/tmp/n",
    "echo done >>/tmp/n",
    "sh /tmp/n 2>/dev/null & :",
];

/// A slot with the state `dev`, which has snapshots made by `backend`.
fn slot(lab: &Lab, backend: &str) -> Result<Slot> {
    let slot = lab.slot("")?;
    slot.copy_by(backend)?;
    slot.make_state()?;
    Ok(slot)
}

/// A guest that writes all the time.
fn busy(slot: &Slot) -> Result<TestVm> {
    let mut vm = slot.boot()?;
    vm.guest.run("load ext4 && mount -t ext4 /dev/vdb /mnt")?;
    vm.guest.run("seq 1 400000 >/mnt/pattern && sync")?;
    vm.guest.run("echo 0 >/tmp/acked")?;
    for line in WRITER.into_iter().chain(NOISE) {
        vm.guest.run(line)?;
    }
    Ok(vm)
}

/// Checks `image`, and what the guest wrote there. Returns the last number of the log.
fn check(slot: &Slot, image: &Path) -> Result<u64> {
    let copy = slot.checked_copy(image)?;
    let pattern = disk::ext4_file(&copy, "/pattern")?;
    let expected: String = (1..=400_000).map(|line| format!("{line}\n")).collect();
    ensure!(pattern == expected.as_bytes(), "The old file differs");
    let log = String::from_utf8(disk::ext4_file(&copy, "/log")?)?;
    for (at, line) in log.lines().enumerate() {
        ensure!(
            line == (at + 1).to_string(),
            "Line {at} of the log is {line:?}"
        );
    }
    Ok(u64::try_from(log.lines().count())?)
}

fn snapshots_under_load(backend: &str) -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, backend)?;
    let mut vm = busy(&slot)?;
    let count = std::env::var("SLOTVMM_SNAPSHOTS").ok();
    let count = count.map_or(Ok(SNAPSHOTS), |count| count.parse())?;
    let mut pauses = Vec::new();
    let mut acknowledged = Vec::new();
    for number in 0..count {
        acknowledged.push(vm.guest.number("cat /tmp/acked")?);
        let name = format!("s{number}");
        let manifest = slot.json(&[&["snapshot", "slot1", &name], &PATIENT[..]].concat())?;
        assert_eq!(manifest["consistency"], "crash", "{manifest}");
        let pause = manifest["pause_us"].as_u64().context("No pause")?;
        pauses.push(pause);
        println!(
            "{backend} {name}: paused for {pause} us, {} bytes copied",
            manifest["copied_bytes"]
        );
    }
    pauses.sort_unstable();
    println!("{backend}: pauses in us: {pauses:?}");
    let after = vm.guest.number("cat /tmp/acked")?;
    assert!(after > acknowledged[0], "the guest writes no more");
    assert_eq!(vm.guest.number("dmesg | grep -ci 'i/o error'; :")?, 0);
    vm.signal(Signal::SIGKILL)?;
    vm.wait()?;
    check(&slot, &slot.state_image())?;
    for (number, acknowledged) in acknowledged.iter().enumerate() {
        let last = check(&slot, &slot.snapshot_image(&format!("s{number}")))?;
        assert!(
            last >= *acknowledged,
            "s{number} ends at {last}, {acknowledged} was on the disk"
        );
    }
    Ok(())
}

#[test]
fn snapshots_by_copying_hold_what_was_on_the_disk() -> Result<()> {
    snapshots_under_load("copy")
}

#[test]
fn snapshots_by_sharing_hold_what_was_on_the_disk() -> Result<()> {
    snapshots_under_load("auto")
}

#[test]
fn whoever_dies_leaves_no_half_snapshot() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, "copy")?;
    let mut vm = busy(&slot)?;

    let mut interrupted = slot.begin_slow_snapshot("slow")?;
    interrupted.signal(Signal::SIGINT)?;
    interrupted.wait()?.expect_error(1, "given up")?;
    assert_eq!(slot.snapshots(), [""; 0], "after Ctrl-C");

    let mut killed = slot.begin_slow_snapshot("slow")?;
    let busy = slot.call(&["snapshot", "slot1", "other"])?;
    busy.expect_error(1, "Another snapshot is being taken")?;
    killed.signal(Signal::SIGKILL)?;
    killed.wait()?;
    // The slot notices, and the next command clears up. Until then it says that it is busy.
    let deadline = std::time::Instant::now() + fixture::PATIENCE;
    while slot
        .call(&[&["snapshot", "slot1", "slow"], &PATIENT[..]].concat())?
        .code
        != Some(0)
    {
        ensure!(std::time::Instant::now() < deadline, "The slot stays busy");
    }
    assert_eq!(slot.snapshots(), ["slow"]);
    check(&slot, &slot.snapshot_image("slow"))?;
    slot.call(&["state", "delete", "dev@slow", "--yes"])?
        .expect_code(0)?;

    let acked = vm.guest.number("cat /tmp/acked")?;
    let mut orphaned = slot.begin_slow_snapshot("slow")?;
    vm.signal(Signal::SIGKILL)?;
    vm.wait()?;
    orphaned
        .wait()?
        .expect_error(1, "was killed before the snapshot was complete")?;
    assert_eq!(slot.snapshots(), [""; 0], "after the slot was killed");
    let last = check(&slot, &slot.state_image())?;
    assert!(last >= acked, "the state lost what was on the disk");
    Ok(())
}

#[test]
fn a_guest_that_powers_off_has_its_snapshot_completed() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, "copy")?;
    let mut vm = busy(&slot)?;
    let acked = vm.guest.number("cat /tmp/acked")?;
    let mut snapshot = slot.begin_slow_snapshot("slow")?;
    vm.power_off()?;
    let ended: Ended = snapshot.wait()?.expect_code(0)?;
    assert!(ended.stdout.contains("crash-consistent"), "{ended:?}");
    let last = check(&slot, &slot.snapshot_image("slow"))?;
    assert!(last >= acked);
    Ok(())
}

#[test]
fn a_second_stop_signal_gives_up_what_a_guest_left_to_complete() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, "copy")?;
    let mut vm = busy(&slot)?;
    let mut snapshot = slot.begin_slow_snapshot("slow")?;
    let status = slot.json(&["status", "slot1"])?;
    assert_eq!(status["snapshot"]["disk"], "data", "{status}");
    vm.guest.send("poweroff -f")?;
    let deadline = std::time::Instant::now() + fixture::PATIENCE;
    // Its process answers, and completes the snapshot.
    while !slot
        .call(&["status", "slot1", "--phases"])?
        .stdout
        .contains("guest ended")
    {
        ensure!(std::time::Instant::now() < deadline, "The guest never ends");
    }
    slot.call(&["pause", "slot1"])?
        .expect_error(1, "completes a snapshot first")?;
    while vm.is_running()? {
        // Signals that come together are one.
        let _ = vm.signal(Signal::SIGTERM);
        ensure!(std::time::Instant::now() < deadline, "It is not stopped");
        std::thread::yield_now();
    }
    snapshot.wait()?.expect_error(1, "slot1 took no snapshot")?;
    assert_eq!(slot.snapshots(), [""; 0], "after it was given up");
    check(&slot, &slot.state_image())?;
    Ok(())
}
