//! Shared directories, with the stock virtiofs driver in the guest and Debian's virtiofsd as the
//! backend.

use std::fs;

use anyhow::Result;
use fixture::share::{CONTENTS, NAMES, Virtiofsd, digests, plant, plant_odd_names};
use fixture::{Lab, Slot, TestVm};

const MOUNT: &str = "load virtiofs && mount -t virtiofs share /mnt && cd /mnt";

/// A slot with a share of the directory `shared` in its own, and the virtiofsd that serves it.
fn slot(lab: &Lab) -> Result<(Slot, Virtiofsd)> {
    let slot = lab.slot("")?;
    let (source, socket) = (slot.path("shared"), slot.path("share.sock"));
    fs::create_dir(&source)?;
    slot.write_slot(&format!(
        "[[fs]]\ntag = \"share\"\nsocket = {socket:?}\nqueues = 2\n"
    ))?;
    let daemon = Virtiofsd::start(&source, &socket)?;
    Ok((slot, daemon))
}

fn expect_tree(vm: &mut TestVm, slot: &Slot) -> Result<()> {
    let expected = digests(&slot.path("shared"))?;
    assert_eq!(vm.guest.run(NAMES)?, expected.names, "names");
    assert_eq!(vm.guest.run(CONTENTS)?, expected.contents, "contents");
    Ok(())
}

#[test]
fn tree_reads_as_it_is_on_the_host_and_programs_run_from_it() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let (slot, mut daemon) = slot(&lab)?;
    plant(&slot.path("shared"), 500)?;
    plant_odd_names(&slot.path("shared"))?;
    let mut vm = slot.boot()?;
    vm.guest.run(MOUNT)?;
    expect_tree(&mut vm, &slot)?;

    vm.guest
        .run("mkdir bin && cp /bin/busybox bin/busybox && sync")?;
    assert_eq!(vm.guest.run("/mnt/bin/busybox echo runs")?, "runs");
    assert!(slot.path("shared/bin/busybox").exists(), "on the host");
    vm.guest.run("cd / && umount /mnt")?;
    vm.power_off()?;
    daemon.wait()
}

#[test]
fn driver_may_be_bound_again_and_pauses_are_not_noticed() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let (slot, _daemon) = slot(&lab)?;
    plant(&slot.path("shared"), 200)?;
    let mut vm = slot.boot()?;
    for _ in 0..2 {
        vm.guest.run(MOUNT)?;
        slot.call(&["pause", "slot1"])?.expect_code(0)?;
        slot.call(&["resume", "slot1"])?.expect_code(0)?;
        expect_tree(&mut vm, &slot)?;
        vm.guest.run("cd / && umount /mnt")?;
        vm.guest.run(
            "cd /sys/bus/virtio/drivers/virtiofs && name=$(ls -d virtio*) && \
             echo $name >unbind && echo $name >bind; cd /",
        )?;
    }
    vm.power_off()?;
    Ok(())
}

#[test]
fn requests_fail_when_the_backend_is_gone_and_the_guest_goes_on() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let (slot, mut daemon) = slot(&lab)?;
    let big = fs::File::create(slot.path("shared/big"))?;
    big.set_len(1 << 40)?;
    let mut vm = slot.boot()?;
    vm.guest.run(MOUNT)?;
    vm.guest
        .run("(dd if=big of=/dev/null bs=64k; echo $? >/tmp/ended) 2>/dev/null &")?;
    vm.guest
        .run("until grep -q 'rchar: [0-9]\\{7\\}' /proc/$(pidof dd)/io 2>/dev/null; do :; done")?;
    daemon.kill()?;
    vm.guest.run("until [ -s /tmp/ended ]; do :; done")?;
    assert_eq!(vm.guest.run("cat /tmp/ended")?, "1");
    let (said, status) = vm.guest.attempt("ls /mnt/other")?;
    assert_ne!(status, 0, "{said}");
    assert_eq!(slot.state()?, "running");

    // A new backend serves the share once its driver starts anew.
    vm.guest.run("cd / && umount /mnt")?;
    let _daemon = Virtiofsd::start(&slot.path("shared"), &slot.path("share.sock"))?;
    vm.guest.run(
        "cd /sys/bus/virtio/drivers/virtiofs && name=$(ls -d virtio*) && \
         echo $name >unbind && echo $name >bind; cd /",
    )?;
    vm.guest.run(MOUNT)?;
    assert_eq!(vm.guest.number("stat -c %s /mnt/big")?, 1 << 40);
    vm.guest.run("cd / && umount /mnt")?;
    vm.power_off()?;
    Ok(())
}

#[test]
fn absent_backend_is_an_error_before_anything_starts() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("[[fs]]\ntag = \"share\"\nsocket = \"/run/nobody.sock\"\n")?;
    slot.call(&["run", "slot1"])?
        .expect_error(31, "nobody answers at /run/nobody.sock")?;
    Ok(())
}
