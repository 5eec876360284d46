//! Booting: what the guest finds, where kernels come from, and what is kept between boots.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use fixture::{Lab, Slot, disk};

const MIB: u64 = 1 << 20;

/// Every bootstrap, and what says where its kernel was found.
const BOOTSTRAPS: [(&str, &str); 8] = [
    ("boot", "/boot"),
    ("bootspec", "bootspec /boot.json"),
    ("system", "nixos-system-slot1"),
    ("store", "nixos-system-slot1"),
    ("gzip", "/boot"),
    ("xz", "/boot"),
    ("zstd", "/boot"),
    ("lz4", "/boot"),
];

/// A slot that boots the variant `name` of the mini guest.
fn variant(lab: &Lab, name: &str, more: &str) -> Result<Slot> {
    let image = lab.image(&format!("mini/6.1-cloud-{name}.squashfs"));
    lab.slot(&format!("[boot]\nbootstrap = {image:?}\n{more}"))
}

fn plain_disk(slot: &Slot, name: &str, bytes: u64) -> Result<PathBuf> {
    let path = slot.path(name);
    File::create(&path)?.set_len(bytes)?;
    Ok(path)
}

#[test]
fn disks_are_where_the_configuration_says_and_data_outlives_the_guest() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let bootstrap = lab.image("mini/6.1-cloud.squashfs");
    let slot = lab.slot("")?;
    slot.write_host(&format!("[defaults.boot]\nbootstrap = {bootstrap:?}\n"))?;
    let third = plain_disk(&slot, "third.img", 3 * MIB)?;
    let fourth = plain_disk(&slot, "fourth.img", 4 * MIB)?;
    slot.write_slot(&format!(
        "[data]\nserial = \"data-0001\"\n\
         [[disk]]\npath = {fourth:?}\nposition = 5\nreadonly = true\nserial = \"fourth\"\n\
         [[disk]]\npath = {third:?}\nposition = 2\n"
    ))?;

    let mut vm = slot.boot()?;
    let facts = "for d in vda vdb vdc vdd; do cd /sys/block/$d; \
                 echo $d $(cat ro) $(cat size) $(cat serial); done";
    let sectors = fs::metadata(&bootstrap)?.len().div_ceil(512);
    assert_eq!(
        vm.guest.run(facts)?,
        format!("vda 1 {sectors}\nvdb 0 134217728 data-0001\nvdc 0 6144\nvdd 1 8192 fourth")
    );
    let image = slot.data_image();
    assert_eq!(fs::metadata(&image)?.len(), 64 << 30);
    assert_eq!(disk::ext4_label(&image)?, "microvm-root");
    let allocated = disk::allocated_bytes(&image)?;
    assert!(allocated < 256 * MIB, "{allocated} bytes are in use");
    vm.guest
        .run("load ext4 && mount -t ext4 /dev/vdb /mnt && echo kept >/mnt/note && umount /mnt")?;
    let ended = vm.power_off()?;
    assert_eq!(ended.stderr, "");

    let mut vm = slot.boot()?;
    vm.guest.run("load ext4 && mount -t ext4 /dev/vdb /mnt")?;
    assert_eq!(vm.guest.run("cat /mnt/note; umount /mnt")?, "kept");
    vm.power_off()?;
    assert_eq!(disk::ext4_file(&image, "/note")?, b"kept\n");
    disk::check_ext4(&image)
}

#[test]
fn kernel_is_found_in_every_layout_and_compression() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    for (name, found_by) in BOOTSTRAPS {
        let plan = variant(&lab, name, "")?.json(&["run", "slot1", "--dry-run"])?;
        let kernel = &plan["kernel"];
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        assert_eq!(kernel["format"], "elf", "{name}: {kernel}");
        assert!(
            text(&kernel["version"]).starts_with("6.1."),
            "{name}: {kernel}"
        );
        assert!(
            text(&kernel["found_by"]).contains(found_by),
            "{name}: {kernel}"
        );
        assert!(
            kernel["initrd"]["bytes"].as_u64() > Some(MIB),
            "{name}: {kernel}"
        );
        let cmdline = text(&plan["cmdline"]);
        assert!(
            cmdline.contains("console=ttyS0 quiet panic=-1"),
            "{name}: {cmdline}"
        );
        let has_init = cmdline.contains("init=/nix/store/");
        assert_eq!(has_init, found_by != "/boot", "{name}: {cmdline}");
    }
    Ok(())
}

#[test]
fn store_image_boots_with_a_disk_copied_from_a_template() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = variant(&lab, "store", "")?;
    let template = plain_disk(&slot, "template.img", 96 * MIB)?;
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-L", "template"])
        .arg(&template)
        .status()
        .context("Cannot start mkfs.ext4")?;
    ensure!(made.success(), "mkfs.ext4 failed");
    let image = lab.image("mini/6.1-cloud-store.squashfs");
    slot.write_slot(&format!(
        "[boot]\nbootstrap = {image:?}\n[data]\ntemplate = {template:?}\nsize = \"96MiB\"\n"
    ))?;
    let mut vm = slot.boot()?;
    let parameters = vm.guest.run("cat /proc/cmdline")?;
    assert!(
        parameters.contains("-nixos-system-slot1-24.11/init"),
        "{parameters}"
    );
    assert_eq!(vm.guest.number("cat /sys/block/vdb/size")?, 96 * MIB / 512);
    vm.power_off()?;
    assert_eq!(disk::ext4_label(&slot.data_image())?, "template");
    let copied = disk::allocated_bytes(&slot.data_image())?;
    assert!(
        copied <= disk::allocated_bytes(&template)? + MIB,
        "{copied} bytes"
    );
    Ok(())
}

#[test]
fn bootspec_image_boots() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let mut vm = variant(&lab, "bootspec", "")?.boot()?;
    let parameters = vm.guest.run("cat /proc/cmdline")?;
    assert!(
        parameters.contains("-nixos-system-slot1-24.11/init"),
        "{parameters}"
    );
    vm.power_off()?;
    Ok(())
}

/// The kernel files below a cache.
fn cached_kernels(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if fs::read(&path)?.starts_with(b"\x7fELF") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

#[test]
fn damaged_cache_of_kernels_is_filled_again() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = variant(&lab, "boot", "")?;
    let cache = slot.path("cache");
    slot.write_host_with_cache(
        &cache.to_string_lossy(),
        "[defaults.machine]\nmemory = 256\n",
    )?;
    let state = || -> Result<serde_json::Value> {
        let plan = slot.json(&["run", "slot1", "--dry-run"])?;
        Ok(plan["kernel"]["cache"].clone())
    };
    // A plan fills nothing, a boot does.
    assert!(state()?["unused"].is_string());
    slot.boot()?.power_off()?;
    assert_eq!(state()?, "hit");

    let kernels = cached_kernels(&cache)?;
    assert_eq!(kernels.len(), 1, "{kernels:?}");
    for kernel in &kernels {
        // The same length, other bytes: an interrupted write, or a bad disk.
        let mut file = File::options().write(true).open(kernel)?;
        file.seek(SeekFrom::Start(4 * MIB))?;
        file.write_all(&[0xcc; 4096])?;
    }
    let vm = slot.boot()?;
    vm.errors().see(0, "Kernel cache is damaged")?;
    vm.power_off()?;
    assert_eq!(state()?, "hit");
    Ok(())
}

#[test]
fn slot_boots_without_a_cache_of_kernels() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = variant(&lab, "boot", "")?;
    slot.write_host_with_cache("/proc/slotvmm", "[defaults.machine]\nmemory = 256\n")?;
    let vm = slot.boot()?;
    vm.errors().see(0, "Kernel cache is not used")?;
    vm.power_off()?;
    Ok(())
}
