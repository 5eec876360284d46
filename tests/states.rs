//! States of slots with real guests: what a guest wrote is in its state, its snapshots and its
//! copies, and nobody touches a state that a guest writes.

use anyhow::Result;
use fixture::disk::{self, Kind, Mounted};
use fixture::{Lab, Slot, TestVm};

/// Boots the slot and mounts the image of its state.
fn boot(slot: &Slot) -> Result<TestVm> {
    let mut vm = slot.boot()?;
    vm.guest.run("load ext4 && mount -t ext4 /dev/vdb /mnt")?;
    Ok(vm)
}

/// Has the guest write a word, durable, and ends it cleanly.
fn leave(mut vm: TestVm, word: &str) -> Result<()> {
    vm.guest.run(&format!("echo {word} >/mnt/word && sync"))?;
    vm.guest.run("umount /mnt")?;
    vm.power_off()?;
    Ok(())
}

fn done(slot: &Slot, arguments: &[&str]) -> Result<()> {
    slot.call(arguments)?.expect_code(0)?;
    Ok(())
}

/// Assigns, clones, snapshots and restores states of guests that write.
fn state_goes_where_it_is_assigned(slot: &Slot) -> Result<()> {
    done(slot, &["state", "assign", "slot1", "dev"])?;
    let mut vm = boot(slot)?;
    vm.guest.run("echo first >/mnt/word && sync")?;

    done(slot, &["state", "clone", "slot:slot1", "copy"])?;
    let holder = format!("the running slot slot1 (process {})", vm.pid());
    for refused in [
        &["state", "export", "dev", "/dev/null"][..],
        &["state", "reset", "slot1", "--discard", "--yes"],
    ] {
        slot.call(refused)?.expect_error(32, &holder)?;
    }
    slot.call(&["state", "delete", "dev", "--yes"])?
        .expect_error(1, "assigned to slot1")?;
    leave(vm, "second")?;

    done(slot, &["snapshot", "slot1", "good"])?;
    leave(boot(slot)?, "third")?;
    done(slot, &["state", "restore", "dev@good", "old"])?;
    done(slot, &["state", "assign", "slot1", "old"])?;
    let mut vm = boot(slot)?;
    assert_eq!(vm.guest.run("cat /mnt/word")?.trim(), "second");
    leave(vm, "fourth")?;

    let image = |state: &str| slot.path(&format!("state/states/{state}/data.img"));
    // The guest had the file system mounted when it was cloned, so there is a journal to replay.
    disk::replay_journal(&image("copy"))?;
    for (state, word) in [("dev", "third"), ("old", "fourth"), ("copy", "first")] {
        disk::check_ext4(&image(state))?;
        let written = disk::ext4_file(&image(state), "/word")?;
        assert_eq!(written, format!("{word}\n").into_bytes(), "{state}");
    }
    done(slot, &["state", "delete", "dev", "--yes"])?;
    done(slot, &["state", "fsck"])
}

#[test]
fn state_goes_where_it_is_assigned_with_what_its_guest_wrote() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    state_goes_where_it_is_assigned(&lab.slot("")?)
}

#[test]
fn state_on_zfs_goes_where_it_is_assigned_with_what_its_guest_wrote() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let (file, place) = (slot.path("host.img"), slot.path("state"));
    let Some(_mounted) = Mounted::of_kind(Kind::Zfs, (&file, 2048), &place)? else {
        return Ok(());
    };
    state_goes_where_it_is_assigned(&slot)
}
