//! What can be wrong with a host: each is one error that names the thing and the remedy, with its
//! own code, and leaves nothing half-made. Files that are wrong need no host: other tests have them.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use fixture::disk::Mounted;
use fixture::{Ended, Lab, Slot, TestVm};

/// A user that has nothing.
const STRANGER: u32 = 45_990;

const RUN: [&str; 2] = ["run", "slot1"];

fn ip(arguments: &str) -> Result<()> {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .context("Cannot start ip")?;
    ensure!(status.success(), "ip {arguments} failed");
    Ok(())
}

/// Runs the slot, which fails so, and leaves no sockets behind.
fn fails(slot: &Slot, code: i32, message: &str) -> Result<Ended> {
    let ended = slot.call(&RUN)?.expect_error(code, message)?;
    ensure!(
        !slot.path("run/slot1/control.sock").exists(),
        "A socket is left"
    );
    Ok(ended)
}

fn fails_as_stranger(slot: &Slot, code: i32, message: &str) -> Result<()> {
    Ended::of(slot.command_as(STRANGER, &RUN)?)?.expect_error(code, message)?;
    Ok(())
}

/// Names in a directory.
fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

#[test]
fn unfit_taps_are_31() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    slot.call(&["net", "apply", "slot1", "--user", "12345"])?
        .expect_code(0)?;
    let others = format!("Tap vm-slot1 belongs to user 12345, this process is user {STRANGER}");
    fails_as_stranger(&slot, 31, &others)?;

    slot.call(&["net", "down", "slot1"])?.expect_code(0)?;
    let ended = fails(&slot, 31, "Tap vm-slot1 does not exist")?;
    ensure!(
        ended.stderr.contains("slotvmm net apply"),
        "No remedy: {ended:?}"
    );
    // The image was made before: it is whole, and the next run takes it.
    fixture::disk::check_ext4(&slot.data_image())?;

    ip("tuntap add vm-slot1 mode tap multi_queue vnet_hdr")?;
    fails(&slot, 31, "tap vm-slot1 in: expected br-slot1")?;
    ip("tuntap del vm-slot1 mode tap multi_queue")?;
    ip("tuntap add vm-slot1 mode tun")?;
    fails(&slot, 31, "vm-slot1")?;
    Ok(())
}

#[test]
fn tap_in_use_is_named() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let vm = slot.boot()?;
    let other = lab.slot("")?;
    fails(&other, 31, "vm-slot1")?;
    vm.power_off()?;
    Ok(())
}

/// A slot that needs nothing of its host but KVM.
fn without_devices(lab: &Lab) -> Result<Slot> {
    let slot = lab.slot("")?;
    slot.write_slot("net = []\n[data]\nenabled = false\n")?;
    Ok(slot)
}

/// Puts something else in the place of `/dev/kvm`, for this test only.
fn in_place_of_kvm(file: &Path) -> Result<Mounted> {
    Mounted::bound(file, Path::new("/dev/kvm"))
}

#[test]
fn kvm_that_is_absent_withheld_or_something_else_is_31() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = without_devices(&lab)?;
    let device = slot.path("device");
    File::create(&device)?;
    {
        let _nothing = in_place_of_kvm(Path::new("/dev/null"))?;
        fails(&slot, 31, "/dev/kvm is not KVM's device")?;
        slot.call(&["doctor"])?.expect_code(31)?;
    }
    {
        fs::set_permissions(&device, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let _withheld = in_place_of_kvm(&device)?;
        fails_as_stranger(&without_devices(&lab)?, 31, "/dev/kvm")?;
    }
    // All of /dev but for kvm.
    let rest = slot.path("rest");
    fs::create_dir(&rest)?;
    let _rest = Mounted::bound(Path::new("/dev"), &rest)?;
    let _empty = Mounted::memory(Path::new("/dev"), 1)?;
    for name in names(&rest)?.iter().filter(|name| *name != "kvm") {
        symlink(rest.join(name), Path::new("/dev").join(name))?;
    }
    fails(&slot, 31, "/dev/kvm")?;
    slot.call(&["doctor"])?.expect_code(31)?;
    Ok(())
}

#[test]
fn stranger_with_a_tap_of_its_own_runs_a_slot() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    if fs::metadata("/dev/kvm")?.mode() & 0o006 != 0o006 {
        eprintln!("skipped: /dev/kvm is not for everybody here");
        return Ok(());
    }
    let slot = lab.slot("")?;
    let user = STRANGER.to_string();
    slot.call(&["net", "apply", "slot1", "--user", &user])?
        .expect_code(0)?;
    let mut vm = TestVm::start(slot.command_as(STRANGER, &["run", "slot1", "--console"])?)?;
    vm.guest.wait_ready()?;
    ensure!(fixture::net::answers_ping()?, "The guest does not answer");
    let status = fs::read_to_string(format!("/proc/{}/status", vm.pid()))?;
    let effective = status.lines().find(|line| line.starts_with("CapEff:"));
    assert_eq!(effective, Some("CapEff:\t0000000000000000"));
    vm.power_off()?;
    Ok(())
}

#[test]
fn data_image_without_a_directory_is_31_and_one_without_sense_is_30() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let image = slot.path("nowhere/data.img");
    slot.write_slot(&format!("[data]\npath = {image:?}\n"))?;
    let ended = fails(&slot, 31, "nowhere")?;
    ensure!(ended.stderr.contains("mkdir"), "No remedy: {ended:?}");
    ensure!(!slot.path("nowhere").exists(), "The directory was made");

    let directory = slot.path("directory.img");
    fs::create_dir(&directory)?;
    slot.write_slot(&format!("[data]\npath = {directory:?}\n"))?;
    fails(&slot, 30, "directory.img")?;

    let odd = slot.path("odd.img");
    File::create(&odd)?.set_len(1000)?;
    slot.write_slot(&format!("[data]\npath = {odd:?}\n"))?;
    fails(&slot, 30, "odd.img")?;
    assert_eq!(fs::metadata(&odd)?.len(), 1000);
    Ok(())
}

#[test]
fn full_disk_is_31_and_leaves_no_image() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("[data]\nsize = \"64GiB\"\n")?;
    let state = slot.path("state");
    let _small = Mounted::memory(&state, 1)?;
    fails(&slot, 31, "data.img")?;
    let left = names(&state)?;
    ensure!(left.is_empty() || left == ["slot1"], "{left:?} is left");
    if !left.is_empty() {
        assert_eq!(names(&state.join("slot1"))?, Vec::<String>::new());
    }

    // The same while a template is copied.
    let template = slot.path("template.img");
    fs::write(&template, vec![0x5a; 4 << 20])?;
    slot.write_slot(&format!("[data]\ntemplate = {template:?}\nsize = 4\n"))?;
    fails(&slot, 31, "data.img")?;
    assert_eq!(
        names(&state.join("slot1")).unwrap_or_default(),
        Vec::<String>::new()
    );
    Ok(())
}
