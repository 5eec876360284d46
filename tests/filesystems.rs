//! Snapshots and states on real file systems of the host: every snapshot that was taken while a
//! guest wrote is restored and booted, and holds all that the guest was told is on the disk.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use fixture::disk::{self, Kind, Mounted};
use fixture::slot::PATIENT;
use fixture::{Lab, Slot, TestVm};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Snapshots on each file system; `SLOTVMM_SNAPSHOTS` says how many instead.
const SNAPSHOTS: u32 = 2;

/// Size of the host's file system in MiB.
const HOST_MIB: u64 = 2048;

/// Images are sparse, and so large that their file systems have blocks of a page. With smaller ones the
/// guest's kernel can be killed between the first and the last block of the page at a file's end, which
/// is no fault to it and one to e2fsck.
const SLOT: &str = "[data]\nsize = 512\n";

/// Appends numbers to a journal. Each is acknowledged once fsync has said that it is on the disk.
const WRITER: [&str; 5] = [
    "echo 'i=0; while :; do i=$((i+1))' >/tmp/w",
    "echo 'echo $i $(echo $i | md5sum) >/tmp/line' >>/tmp/w",
    "echo 'dd if=/tmp/line of=/mnt/log oflag=append conv=notrunc,fsync status=none || exit' >>/tmp/w",
    "echo 'echo $i >/tmp/a && mv /tmp/a /tmp/acked; done' >>/tmp/w",
    "sh /tmp/w & :",
];

/// Prints how many lines from the first one on are what they have to be: what was not acknowledged
/// may be there in part.
const CHECK: [&str; 2] = [
    "echo 'g=0; while read i c; do n=$((g+1)); s=$(echo $(echo $n | md5sum))' >/tmp/c",
    "echo '[ \"$i $c\" = \"$n $s\" ] || break; g=$n; done; echo $g' >>/tmp/c",
];

/// Overwrites, frees and allocates blocks all the time.
const NOISE: [&str; 3] = [
    "echo 'while :; do dd if=/dev/urandom of=/mnt/noise bs=64k count=32 status=none' >/tmp/n",
    "echo 'fstrim /mnt; done' >>/tmp/n",
    "sh /tmp/n 2>/dev/null & :",
];

fn done(slot: &Slot, arguments: &[&str]) -> Result<()> {
    slot.call(arguments)?.expect_code(0)?;
    Ok(())
}

/// Boots the slot and mounts the image of its state.
fn boot(slot: &Slot) -> Result<TestVm> {
    let mut vm = slot.boot()?;
    vm.guest.run("load ext4 && mount -t ext4 /dev/vdb /mnt")?;
    Ok(vm)
}

/// Boots the state, as a guest finds it after a power cut, and returns the last number of its journal.
fn last_number(slot: &Slot, state: &str) -> Result<u64> {
    done(slot, &["state", "assign", "slot1", state])?;
    let mut vm = boot(slot)?;
    for line in CHECK {
        vm.guest.run(line)?;
    }
    let last = vm.guest.number("sh /tmp/c </mnt/log")?;
    let sum = vm.guest.run("md5sum </mnt/pattern")?;
    let expected = vm.guest.run("seq 1 200000 | md5sum")?;
    ensure!(sum == expected, "The old file of {state} differs");
    ensure!(vm.guest.number("dmesg | grep -ci 'i/o error'; :")? == 0);
    vm.guest.run("umount /mnt")?;
    vm.power_off()?;
    disk::check_ext4(&image(slot, state))?;
    Ok(last)
}

fn image(slot: &Slot, state: &str) -> PathBuf {
    slot.path(&format!("state/states/{state}/data.img"))
}

/// Takes snapshots of a guest that writes; returns what was acknowledged before each.
fn snapshots(slot: &Slot, kind: Kind) -> Result<Vec<u64>> {
    let mut vm = boot(slot)?;
    vm.guest.run("seq 1 200000 >/mnt/pattern && sync")?;
    vm.guest.run("echo 0 >/tmp/acked")?;
    for line in WRITER.into_iter().chain(NOISE) {
        vm.guest.run(line)?;
    }
    let count = std::env::var("SLOTVMM_SNAPSHOTS").ok();
    let count: u32 = count.map_or(Ok(SNAPSHOTS), |count| count.parse())?;
    let mut acknowledged = Vec::new();
    for number in 1..=count {
        // The first one, too, has something to lose.
        let acked = vm
            .guest
            .number("while [ $(cat /tmp/acked) -lt 3 ]; do sleep 1; done; cat /tmp/acked")?;
        let name = format!("s{number}");
        let manifest = slot.json(&[&["snapshot", "slot1", &name], &PATIENT[..]].concat())?;
        let copied = manifest["copied_bytes"].as_u64().context("No number")?;
        ensure!(
            (copied == 0) == (kind != Kind::Ext4),
            "{kind:?} copied {copied} bytes"
        );
        println!("{kind:?} {name}: {}", told(&manifest));
        acknowledged.push(acked);
    }
    // Its state is what a host that fails leaves.
    vm.signal(Signal::SIGKILL)?;
    vm.wait()?;
    Ok(acknowledged)
}

fn told(manifest: &Value) -> String {
    let of = |name: &str| manifest[name].to_string();
    format!(
        "paused {} us, {} bytes copied",
        of("pause_us"),
        of("copied_bytes")
    )
}

fn snapshots_boot_with_what_was_acknowledged(kind: Kind) -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot(SLOT)?;
    let file = slot.path("host.img");
    let Some(_mounted) = Mounted::of_kind(kind, (&file, HOST_MIB), &slot.path("state"))? else {
        return Ok(());
    };
    slot.make_state()?;
    let acknowledged = snapshots(&slot, kind)?;
    for (number, acked) in (1..).zip(acknowledged) {
        let (snapshot, state) = (format!("dev@s{number}"), format!("r{number}"));
        done(&slot, &["state", "restore", &snapshot, &state])?;
        let last = last_number(&slot, &state)?;
        ensure!(
            last >= acked,
            "{snapshot} ends at {last}, {acked} was acknowledged"
        );
        println!("{kind:?} {snapshot}: booted, {last} lines, {acked} acknowledged before");
    }
    // What a killed process left, and a copy of it.
    done(&slot, &["state", "clone", "dev", "copy"])?;
    disk::replay_journal(&image(&slot, "copy"))?;
    disk::check_ext4(&image(&slot, "copy"))?;
    for state in ["dev", "r1"] {
        done(&slot, &["state", "delete", state, "--yes"])?;
    }
    done(&slot, &["state", "fsck"])
}

#[test]
fn snapshots_on_xfs_boot_with_what_was_acknowledged() -> Result<()> {
    snapshots_boot_with_what_was_acknowledged(Kind::Xfs)
}

#[test]
fn snapshots_on_btrfs_boot_with_what_was_acknowledged() -> Result<()> {
    snapshots_boot_with_what_was_acknowledged(Kind::Btrfs)
}

#[test]
fn snapshots_on_ext4_boot_with_what_was_acknowledged() -> Result<()> {
    snapshots_boot_with_what_was_acknowledged(Kind::Ext4)
}

#[test]
fn snapshots_on_zfs_boot_with_what_was_acknowledged() -> Result<()> {
    snapshots_boot_with_what_was_acknowledged(Kind::Zfs)
}
