//! Snapshots of a running slot on a file system of the host that is full, or fills up meanwhile: the
//! guest writes on, nothing remains of the snapshot, and the error says where room is needed.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use fixture::disk::{self, Kind, Mounted};
use fixture::{Lab, Slot, TestVm};
use nix::sys::signal::Signal;
use nix::sys::statvfs::statvfs;

/// Size of the host's file system: as small as XFS can be.
const HOST_MIB: u64 = 320;
/// Size of the guest's disk, as slots of tests have it.
const DISK_MIB: u64 = 64;
/// What a snapshot leaves free, and a bit.
const RESERVE_MIB: u64 = 17;

/// Appends numbers to a file, each acknowledged once it is on the disk, and overwrites another.
const WRITER: [&str; 4] = [
    "echo 'i=0; while :; do i=$((i+1)); echo $i >>/mnt/log' >/tmp/w",
    "echo 'dd if=/dev/urandom of=/mnt/noise bs=64k count=8 conv=notrunc status=none' >>/tmp/w",
    "echo 'sync; echo $i >/tmp/a.new; mv /tmp/a.new /tmp/acked; done' >>/tmp/w",
    "echo 0 >/tmp/acked; sh /tmp/w & :",
];

/// A file that takes the space of a file system.
struct Ballast(PathBuf);

impl Ballast {
    /// Takes all but so many MiB.
    fn leave(&self, mib: u64) -> Result<()> {
        let Self(path) = self;
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .context("No ballast")?;
        // Space is given out in pieces, and metadata takes some.
        for _ in 0..4 {
            let space = statvfs(path)?;
            let free = space.blocks_available() * space.fragment_size();
            let more = free.saturating_sub(mib << 20);
            if more < 1 << 20 {
                return Ok(());
            }
            let length = (file.metadata()?.len() + more).to_string();
            // What does not fit is tried again with what there is then.
            Command::new("fallocate")
                .args(["-l", &length])
                .arg(path)
                .output()
                .context("Cannot start fallocate")?;
        }
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        fs::remove_file(&self.0).context("Cannot remove the ballast")
    }
}

/// A guest that writes all the time, to a disk whose blocks are all there.
fn busy(slot: &Slot) -> Result<TestVm> {
    slot.make_state()?;
    let mut vm = slot.boot()?;
    let allocated = Command::new("fallocate")
        .args(["-l", &(DISK_MIB << 20).to_string()])
        .arg(slot.state_image())
        .status()?;
    ensure!(allocated.success(), "The disk cannot be allocated");
    vm.guest.run("load ext4 && mount -t ext4 /dev/vdb /mnt")?;
    for line in WRITER {
        vm.guest.run(line)?;
    }
    Ok(vm)
}

/// A snapshot fails with these words and with the state's place; nothing of it remains, and the guest
/// goes on to write.
fn fails(slot: &Slot, vm: &mut TestVm, (mut snapshot, why): (TestVm, &str)) -> Result<()> {
    let place = slot.path("state/states/dev");
    let ended = snapshot.wait()?.expect_error(1, why)?;
    ensure!(
        ended.stderr.contains(&*place.to_string_lossy()),
        "It does not say where: {ended:?}"
    );
    println!("{}", ended.stderr.trim());
    ensure!(slot.snapshots().is_empty(), "Left: {:?}", slot.snapshots());
    let acked = vm.guest.number("cat /tmp/acked")?;
    vm.guest.run(&format!(
        "while [ $(cat /tmp/acked) -le {acked} ]; do sleep 1; done"
    ))?;
    let errors = vm.guest.number("dmesg | grep -ci 'i/o error'; :")?;
    ensure!(errors == 0, "The guest has errors");
    Ok(())
}

fn full_disk_fails_the_snapshot_alone(kind: Kind) -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let file = slot.path("host.img");
    let place = slot.path("state");
    let Some(_mounted) = Mounted::of_kind(kind, (&file, HOST_MIB), &place)? else {
        return Ok(());
    };
    let mut vm = busy(&slot)?;
    let ballast = Ballast(place.join("ballast"));

    ballast.leave(RESERVE_MIB - 4)?;
    let refused = (slot.begin_snapshot("s", &[])?, "MiB free: make room there");
    fails(&slot, &mut vm, refused).context("Refused before it begins")?;

    ballast.leave(0)?;
    fails(&slot, &mut vm, (slot.begin_snapshot("s", &[])?, "")).context("Full")?;

    ballast.remove()?;
    if kind == Kind::Ext4 {
        ballast.leave(DISK_MIB + RESERVE_MIB + 8)?;
        let slow = slot.begin_slow_snapshot("s")?;
        ballast.leave(RESERVE_MIB - 4)?;
        let failed = (slow, "MiB free: make room there");
        fails(&slot, &mut vm, failed).context("Filled up meanwhile")?;
        ballast.remove()?;
    }

    let acked = vm.guest.number("cat /tmp/acked")?;
    slot.begin_snapshot("s", &[])?.wait()?.expect_code(0)?;
    ensure!(slot.snapshots() == ["s"]);
    vm.signal(Signal::SIGKILL)?;
    vm.wait()?;
    let copy = slot.checked_copy(&slot.snapshot_image("s"))?;
    let log = String::from_utf8(disk::ext4_file(&copy, "/log")?)?;
    let last = u64::try_from(log.lines().count())?;
    ensure!(last >= acked, "{last} of {acked} numbers are there");
    Ok(())
}

#[test]
fn full_ext4_fails_the_snapshot_alone() -> Result<()> {
    full_disk_fails_the_snapshot_alone(Kind::Ext4)
}

#[test]
fn full_xfs_fails_the_snapshot_alone() -> Result<()> {
    full_disk_fails_the_snapshot_alone(Kind::Xfs)
}
