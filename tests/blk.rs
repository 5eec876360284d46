//! Disks: what is written is there, what is given back is free, what is read-only stays.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;
use fixture::{Lab, disk};

const MIB: u64 = 1 << 20;

/// Lines of the test's file, about 30 MiB.
const LINES: u32 = 4_000_000;

/// What `seq 1 LINES` prints.
fn sequence() -> Vec<u8> {
    let mut text = String::new();
    for line in 1..=LINES {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    }
    text.into_bytes()
}

#[test]
fn synced_data_outlives_a_reset_and_discarded_space_is_free() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("[data]\nsize = 256\n")?;
    let image = slot.data_image();
    let mount = "load ext4 && mount -t ext4 /dev/vdb /mnt";
    let mut vm = slot.boot()?;
    vm.guest.run(mount)?;
    vm.guest
        .run(&format!("seq 1 {LINES} >/mnt/numbers && sync"))?;
    // No unmounting: the guest is gone from one moment to the next.
    vm.guest.send("reboot -f")?;
    vm.wait()?.expect_code(10)?;

    let expected = sequence();
    let mut vm = slot.boot()?;
    vm.guest.run(mount)?;
    assert_eq!(
        vm.guest.number("stat -c %s /mnt/numbers")?,
        expected.len() as u64
    );
    vm.guest.run("umount /mnt")?;
    vm.power_off()?;
    assert!(
        disk::ext4_file(&image, "/numbers")? == expected,
        "the content differs"
    );
    disk::check_ext4(&image)?;

    let mut vm = slot.boot()?;
    vm.guest.run(mount)?;
    let full = disk::allocated_bytes(&image)?;
    vm.guest
        .run("rm /mnt/numbers && sync && fstrim /mnt && umount /mnt")?;
    let trimmed = disk::allocated_bytes(&image)?;
    assert!(
        trimmed + 20 * MIB < full,
        "{full} bytes before, {trimmed} after"
    );

    vm.guest
        .run("dd if=/dev/zero of=/dev/vdb bs=1M count=8 conv=fsync 2>/dev/null")?;
    vm.guest.run("blkdiscard /dev/vdb")?;
    let discarded = disk::allocated_bytes(&image)?;
    assert!(discarded < MIB, "{discarded} bytes are left");
    assert_eq!(
        vm.guest
            .run("head -c 65536 /dev/vdb | tr -d '\\0' | wc -c")?,
        "0"
    );
    vm.power_off()?;
    assert_eq!(fs::metadata(&image)?.len(), 256 * MIB);
    Ok(())
}

#[test]
fn read_only_disks_refuse_writes_and_stay_as_they_are() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    // A copy that the process may write, so that only slotvmm stands in the way.
    let (bootstrap, extra) = (slot.path("bootstrap.squashfs"), slot.path("extra.img"));
    fs::copy(lab.image("mini/6.1-cloud.squashfs"), &bootstrap)?;
    let before = fs::read(&bootstrap)?;
    fs::write(&extra, vec![0x77; 65536])?;
    slot.write_slot(&format!(
        "[boot]\nbootstrap = {bootstrap:?}\n\
         [[disk]]\npath = {extra:?}\nposition = 2\nreadonly = true\n"
    ))?;
    let mut vm = slot.boot()?;
    for name in ["vda", "vdc"] {
        let write = format!("dd if=/dev/urandom of=/dev/{name} bs=4096 count=1 conv=fsync,notrunc");
        let (output, status) = vm.guest.attempt(&write)?;
        assert_ne!(status, 0, "{name}: {output}");
        // Root in the guest may think otherwise; the device still refuses.
        vm.guest.attempt(&format!("blockdev --setrw /dev/{name}"))?;
        vm.guest.attempt(&write)?;
        vm.guest.attempt(&format!("blkdiscard /dev/{name}"))?;
    }
    let read = vm
        .guest
        .run("head -c 65536 /dev/vdc | tr -d '\\167' | wc -c")?;
    assert_eq!(read, "0", "the disk no longer reads as it was");
    vm.guest
        .run("load squashfs && mount -t squashfs -o ro /dev/vda /mnt && ls /mnt/boot")?;
    vm.power_off()?;
    assert!(fs::read(&bootstrap)? == before, "the bootstrap was changed");
    assert!(
        fs::read(&extra)? == vec![0x77; 65536],
        "the disk was changed"
    );
    Ok(())
}

#[test]
fn full_host_disk_is_an_error_in_the_guest_and_no_end_of_it() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("[data]\nsize = 128\n")?;
    let _small = disk::Mounted::memory(&slot.path("state"), 24)?;
    let mut vm = slot.boot()?;
    let fill = "dd if=/dev/urandom of=/dev/vdb bs=1M count=64 conv=fsync";
    let (output, status) = vm.guest.attempt(fill)?;
    assert_ne!(status, 0, "{output}");
    assert!(vm.is_running()?);
    assert_eq!(slot.state()?, "running");
    // Reading still works, and so does writing where there is space already.
    vm.guest
        .run("dd if=/dev/vdb of=/dev/null bs=1M count=4 2>/dev/null")?;
    vm.guest
        .run("dd if=/dev/zero of=/dev/vdb bs=4096 count=1 conv=fsync,notrunc 2>/dev/null")?;
    vm.power_off()?;
    Ok(())
}

#[test]
fn every_engine_writes_what_it_is_given() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    for engine in ["sync", "io_uring"] {
        let slot = lab.slot(&format!("[data]\nengine = {engine:?}\n"))?;
        let mut vm = slot.boot()?;
        vm.guest
            .run("seq 1 400000 | head -c 2097152 >/tmp/numbers")?;
        vm.guest
            .run("dd if=/tmp/numbers of=/dev/vdb bs=64k seek=16 conv=fsync,notrunc 2>/dev/null")?;
        vm.guest.run("echo 3 >/proc/sys/vm/drop_caches")?;
        vm.guest
            .run("dd if=/dev/vdb bs=64k skip=16 count=32 2>/dev/null | cmp - /tmp/numbers")?;
        vm.power_off()?;
        let image = fs::read(slot.data_image())?;
        let written = image.get(1 << 20..3 << 20).unwrap_or_default();
        assert!(
            sequence().starts_with(written) && !written.is_empty(),
            "{engine}"
        );
    }
    Ok(())
}
