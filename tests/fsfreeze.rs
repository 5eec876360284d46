//! Snapshots with the guest's file systems frozen: nothing to replay, and always thawed.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use anyhow::{Result, ensure};
use fixture::slot::PATIENT;
use fixture::{Lab, PATIENCE, Slot, TestVm, disk};

/// Appends to a file of the data disk, and counts beside it what is on the disk.
const WRITER: [&str; 3] = [
    "echo 'i=0; while :; do i=$((i+1)); echo $i >>/data/log; sync' >/tmp/w",
    "echo 'echo $i >/tmp/a.new; mv /tmp/a.new /tmp/acked; done' >>/tmp/w",
    "sh /tmp/w & :",
];

/// A slot with the state `dev`, and a disk with the program for guests.
fn slot(lab: &Lab) -> Result<Slot> {
    let slot = lab.slot("")?;
    let image = slot.path("content.squashfs");
    lab.pack_program("SLOTVMM_GUEST_BIN", &image)?;
    slot.write_slot(&format!(
        "[[disk]]\npath = {image:?}\nposition = 2\nreadonly = true\n"
    ))?;
    slot.make_state()?;
    Ok(slot)
}

/// A guest that writes all the time. Nobody listens to the host yet.
fn busy(slot: &Slot) -> Result<TestVm> {
    let mut vm = slot.boot()?;
    vm.guest.run("load ext4 && load squashfs")?;
    vm.guest.run("load vmw_vsock_virtio_transport")?;
    vm.guest
        .run("mkdir -p /data && mount -t ext4 /dev/vdb /data")?;
    vm.guest.run("mount -t squashfs -o ro /dev/vdc /mnt")?;
    vm.guest.run("echo 0 >/tmp/acked")?;
    for line in WRITER {
        vm.guest.run(line)?;
    }
    Ok(vm)
}

/// Has the guest listen to the host, soon.
fn listen(vm: &mut TestVm) -> Result<()> {
    let listen = "/mnt/slotvmm-guest freeze listen 2>>/tmp/said & echo $! >/tmp/pid";
    vm.guest.run(listen).map(drop)
}

/// Waits until the guest has written more.
fn writes_on(vm: &mut TestVm) -> Result<()> {
    let before = vm.guest.number("cat /tmp/acked")?;
    let more = format!("while [ $(cat /tmp/acked) -le {before} ]; do usleep 1000; done");
    vm.guest.run(&more).map(drop)
}

/// A host that asks the guest to freeze, and is answered; the guest may not listen yet.
fn frozen(slot: &Slot) -> Result<UnixStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask_to_freeze(slot) {
            Ok((stream, answer)) if !answer.is_empty() => {
                assert_eq!(answer, "OK 1 0", "one file system of a disk is writable");
                return Ok(stream);
            }
            refused => ensure!(Instant::now() < deadline, "Nobody listens: {refused:?}"),
        }
    }
}

fn ask_to_freeze(slot: &Slot) -> io::Result<(UnixStream, String)> {
    let mut stream = UnixStream::connect(slot.path("run/slot1/vsock.sock"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"CONNECT 5123\n")?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    line.clear();
    stream.write_all(b"FREEZE 300\n")?;
    lines.read_line(&mut line)?;
    Ok((stream, line.trim().to_owned()))
}

#[test]
fn a_frozen_guest_leaves_nothing_to_replay() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab)?;
    let mut vm = busy(&slot)?;
    let nobody = slot.call(&["snapshot", "slot1", "s0", "--fsfreeze"])?;
    nobody.expect_error(1, "slotvmm-freeze.socket")?;
    listen(&mut vm)?;
    drop(frozen(&slot)?);
    writes_on(&mut vm)?;

    let acked = vm.guest.number("cat /tmp/acked")?;
    let arguments = [&["snapshot", "slot1", "s1", "--fsfreeze"], &PATIENT[..]].concat();
    let manifest = slot.json(&arguments)?;
    assert_eq!(manifest["consistency"], "filesystem", "{manifest}");
    writes_on(&mut vm)?;
    let plain = slot.json(&[&["snapshot", "slot1", "s2"], &PATIENT[..]].concat())?;
    assert_eq!(plain["consistency"], "crash", "{plain}");

    let copy = slot.path("checked.img");
    fs::copy(slot.snapshot_image("s1"), &copy)?;
    ensure!(!disk::needs_recovery(&copy)?, "The journal of s1 is in use");
    disk::check_ext4(&copy)?;
    let log = String::from_utf8(disk::ext4_file(&copy, "/log")?)?;
    ensure!(
        log.lines().count() as u64 >= acked,
        "s1 lacks what was on the disk"
    );
    ensure!(
        disk::needs_recovery(&slot.snapshot_image("s2"))?,
        "This test sees no journal"
    );
    assert_eq!(
        vm.guest.run("cat /tmp/said")?,
        "error: The host hung up: everything is thawed"
    );
    Ok(())
}

#[test]
fn whatever_happens_the_guest_is_thawed() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab)?;
    let mut vm = busy(&slot)?;
    listen(&mut vm)?;

    // The host's process dies.
    drop(frozen(&slot)?);
    writes_on(&mut vm)?;

    // The slot takes no snapshot, or not in time.
    let late = ["snapshot", "slot1", "s", "--fsfreeze", "--pause-limit", "0"];
    slot.call(&late)?
        .expect_error(1, "slot1 took no snapshot")?;
    writes_on(&mut vm)?;

    // The host thaws.
    let mut first = frozen(&slot)?;
    first.write_all(b"THAW\n")?;
    let mut answer = [0; 3];
    first.read_exact(&mut answer)?;
    assert_eq!(&answer, b"OK\n");
    writes_on(&mut vm)?;

    // The program is told to end.
    let stopped = frozen(&slot)?;
    vm.guest.run("kill $(cat /tmp/pid)")?;
    writes_on(&mut vm)?;
    drop(stopped);

    // The program is killed.
    listen(&mut vm)?;
    let killed = frozen(&slot)?;
    vm.guest.run("kill -9 $(cat /tmp/pid)")?;
    writes_on(&mut vm)?;
    drop(killed);

    // All of its processes are killed, before one can thaw for the other: what a unit does then.
    listen(&mut vm)?;
    let abandoned = frozen(&slot)?;
    vm.guest.run("killall -STOP slotvmm-guest")?;
    vm.guest.run("killall -9 slotvmm-guest")?;
    let thawed = vm.guest.run("/mnt/slotvmm-guest thaw")?;
    assert_eq!(thawed, "/data was frozen and is thawed");
    writes_on(&mut vm)?;
    drop(abandoned);
    assert_eq!(vm.guest.number("dmesg | grep -ci 'i/o error'; :")?, 0);
    Ok(())
}
