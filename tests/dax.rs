//! The window of a share: large files that the guest maps straight from the host's page cache.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use fixture::share::{digest, kill_process, wait_child};
use fixture::{Lab, Slot, TestVm};

const MOUNT: &str = "load virtiofs && mount -t virtiofs -o ro share /mnt && cd /mnt";

/// What the second kernel is told besides.
const AGAIN: &str = "again=1";

/// Bytes of each large file: more of them than the window holds.
const LARGE: usize = 5 << 20;

/// How many there are.
const FILES: usize = 8;

/// A slot with a share that has a window of `mib` MiB.
fn slot(lab: &Lab, mib: u32) -> Result<Slot> {
    let slot = lab.slot("")?;
    let source = source(&slot);
    fs::create_dir(&source)?;
    for file in 0..FILES {
        fs::write(source.join(format!("large{file}")), content(file))?;
    }
    fs::write(source.join("small"), "small")?;
    // A program that needs nothing but itself: ours.
    fs::copy(lab.program(), source.join("program"))?;
    slot.write_slot(&format!(
        "[[fs]]\ntag = \"share\"\nsource = {source:?}\ndax = \"{mib}MiB\"\n\
         [machine]\nvcpus = 2\nmemory = 160\n"
    ))?;
    Ok(slot)
}

fn source(slot: &Slot) -> PathBuf {
    slot.path("shared")
}

/// Content that is another in each page, and ends within one.
fn content(file: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LARGE);
    for page in 0..LARGE / 4096 {
        bytes.extend((page * FILES + file).to_le_bytes().repeat(4096 / 8));
    }
    bytes.truncate(LARGE - 1000);
    bytes
}

/// Whether the slot's process has `name` mapped for its guest. It is called as the backend knows it,
/// whose root is the share.
fn is_mapped(vm: &TestVm, name: &str) -> Result<bool> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", vm.pid()))?;
    let path = format!("/{name}");
    Ok(maps.lines().any(|map| map.ends_with(&path)))
}

fn expect_files(vm: &mut TestVm) -> Result<()> {
    let sums = vm.guest.run("sha256sum large?")?;
    let expected: Vec<String> = (0..FILES)
        .map(|file| format!("{}  large{file}", digest(&content(file))))
        .collect();
    assert_eq!(sums, expected.join("\n"));
    Ok(())
}

#[test]
fn large_files_are_mapped_and_read_as_they_are_on_the_host() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, 24)?;
    let mut vm = slot.boot()?;
    vm.guest.run(MOUNT)?;
    assert_eq!(vm.guest.run("cat small")?, "small");
    ensure!(!is_mapped(&vm, "small")? && !is_mapped(&vm, "large0")?);
    vm.guest.run("cat large0 >/dev/null")?;
    ensure!(is_mapped(&vm, "large0")?, "large0 is not mapped");
    // Twice what the window holds.
    expect_files(&mut vm)?;
    // A program is mapped by whoever runs it.
    let version = vm.guest.run("/mnt/program --version")?;
    assert!(version.starts_with("slotvmm "), "{version}");
    ensure!(is_mapped(&vm, "program")?, "the program is not mapped");

    // All at once: each waits for cells that others give back.
    vm.guest.run(
        "for n in 0 1 2 3 4 5 6 7; do \
         (sha256sum large$n >/tmp/sum$n; echo $? >/tmp/done$n) & done",
    )?;
    vm.guest
        .run("for n in 0 1 2 3 4 5 6 7; do until [ -s /tmp/done$n ]; do :; done; done")?;
    let sums = vm.guest.run("cat /tmp/sum?")?;
    for (file, sum) in sums.lines().enumerate() {
        assert_eq!(sum, format!("{}  large{file}", digest(&content(file))));
    }

    // The backend is another one: what is mapped stays, and more is.
    let backend = wait_child(vm.pid(), None)?;
    vm.guest
        .run("exec 9<large7 && head -c 4096 <&9 >/dev/null")?;
    kill_process(backend)?;
    wait_child(vm.pid(), Some(backend))?;
    for file in [7, 2] {
        let sum = vm.guest.run(&format!("sha256sum large{file}"))?;
        assert_eq!(sum, format!("{}  large{file}", digest(&content(file))));
    }

    // A session that ends leaves nothing mapped.
    vm.guest.run("exec 9<&-; cd / && umount /mnt")?;
    for name in ["large0", "large7", "program"] {
        ensure!(!is_mapped(&vm, name)?, "{name} is still mapped");
    }
    vm.guest.run(MOUNT)?;
    vm.guest.run("cat large3 >/dev/null")?;
    ensure!(is_mapped(&vm, "large3")?);
    // Nothing is unmounted.
    vm.guest.send("reboot -f")?;
    vm.wait()?.expect_code(10)?;
    Ok(())
}

#[test]
fn kernel_that_another_one_starts_has_a_window_of_its_own() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, 64)?;
    let program = std::env::var_os("SLOTVMM_PROBE_BIN").context("SLOTVMM_PROBE_BIN is not set")?;
    fs::copy(program, source(&slot).join("probe"))?;
    let mut vm = slot.boot()?;
    vm.guest.run(MOUNT)?;
    vm.guest
        .run("cat large0 large1 >/dev/null; exec 9<large1")?;
    ensure!(is_mapped(&vm, "large0")? && is_mapped(&vm, "large1")?);
    vm.guest
        .run("mkdir /old && load squashfs && mount -t squashfs -o ro /dev/vda /old")?;

    // Nothing is unmounted, and no device is reset before the next kernel finds it.
    let start = vm.guest.screen().position();
    vm.guest
        .send("k=/old/boot/vmlinuz i=/old/boot/initrd c=$(cat /proc/cmdline)")?;
    vm.guest
        .send(&format!("./probe kexec $k $i \"$c {AGAIN}\""))?;
    vm.guest.screen().see(start, "MINI ready\n")?;
    vm.guest.attempt(":")?;
    let cmdline = vm.guest.run("cat /proc/cmdline")?;
    ensure!(cmdline.contains(AGAIN), "{cmdline}");
    vm.guest.run(MOUNT)?;
    ensure!(!is_mapped(&vm, "large1")?, "of the kernel before");
    expect_files(&mut vm)?;
    ensure!(is_mapped(&vm, "large7")?, "large7 is not mapped");
    vm.guest.run("cd / && umount /mnt")?;
    vm.power_off()?;
    Ok(())
}

#[test]
fn files_that_change_under_a_mapping_do_not_end_the_machine() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, 64)?;
    let mut vm = slot.boot()?;
    vm.guest.run(MOUNT)?;

    // Removed and replaced: who has the old file open reads it, everybody else the new one.
    vm.guest
        .run("exec 9<large0 && head -c 4096 <&9 >/dev/null")?;
    ensure!(is_mapped(&vm, "large0")?);
    fs::remove_file(source(&slot).join("large0"))?;
    fs::write(source(&slot).join("large0"), content(1))?;
    let rest = vm.guest.run("sha256sum <&9")?;
    let expected = digest(&content(0)[4096..]);
    assert_eq!(rest.split(' ').next(), Some(expected.as_str()));

    // Truncated: what is gone reads as zeroes, and the rest as it was.
    vm.guest.run("cat large5 >/dev/null; exec 8<large5")?;
    let file = File::options()
        .write(true)
        .open(source(&slot).join("large5"))?;
    file.set_len(3 << 20)?;
    let rest = vm.guest.run("sha256sum <&8")?;
    let mut expected = content(5);
    expected[3 << 20..].fill(0);
    assert_eq!(rest.split(' ').next(), Some(digest(&expected).as_str()));
    assert_eq!(slot.state()?, "running");
    vm.guest.run("exec 8<&- 9<&-; cd / && umount /mnt")?;
    vm.power_off()?;
    Ok(())
}
