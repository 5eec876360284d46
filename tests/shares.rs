//! Directories that slotvmm serves itself, with the stock virtiofs driver in the guest.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use fixture::share::{
    CONTENTS, NAMES, digests, kill_process, plant, plant_odd_names, wait_child, wait_gone,
};
use fixture::{Lab, Slot, TestVm};

const MOUNT: &str = "load virtiofs && mount -t virtiofs -o ro share /mnt && cd /mnt";

const REBIND: &str = "cd /sys/bus/virtio/drivers/virtiofs && name=$(ls -d virtio*) && \
                      echo $name >unbind && echo $name >bind; cd /";

/// Bytes of a file that is a hole but for its end.
const SPARSE: u64 = 1 << 40;

/// What only the command line of the second kernel says.
const AGAIN: &str = "again=1";

/// A slot with a share of the directory `shared` in its own; `text` ends the share's table.
fn slot(lab: &Lab, text: &str) -> Result<Slot> {
    let slot = lab.slot("")?;
    let source = source(&slot);
    fs::create_dir(&source)?;
    slot.write_slot(&format!(
        "[[fs]]\ntag = \"share\"\nsource = {source:?}\n{text}"
    ))?;
    Ok(slot)
}

fn source(slot: &Slot) -> PathBuf {
    slot.path("shared")
}

fn expect_tree(vm: &mut TestVm, slot: &Slot) -> Result<()> {
    let expected = digests(&source(slot))?;
    assert_eq!(vm.guest.run(NAMES)?, expected.names, "names");
    assert_eq!(vm.guest.run(CONTENTS)?, expected.contents, "contents");
    Ok(())
}

/// Files of the large tree; `LAB_TREE_FILES` says otherwise.
fn large_tree() -> usize {
    let set = std::env::var("LAB_TREE_FILES").ok();
    set.and_then(|set| set.parse().ok()).unwrap_or(1000)
}

/// Boots with few descriptors, as a unit without `LimitNOFILE=` has them, and no way to more.
fn boot_with_few_descriptors(slot: &Slot) -> Result<TestVm> {
    let run = slot.command(&["run", "slot1", "--console"]);
    let mut limited = Command::new("prlimit");
    limited.arg("--nofile=1024:1024").arg(run.get_program());
    limited.args(run.get_args());
    for (name, value) in run.get_envs() {
        limited.envs(value.map(|value| (name, value)));
    }
    let mut vm = TestVm::start(limited)?;
    vm.guest.wait_ready()?;
    Ok(vm)
}

#[test]
fn large_tree_reads_as_it_is_on_the_host_with_few_descriptors() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, "")?;
    plant(&source(&slot), large_tree())?;
    let mut vm = boot_with_few_descriptors(&slot)?;
    vm.guest.run(MOUNT)?;
    let files = vm
        .guest
        .number("find . -type f -exec stat -c %s {} + | wc -l")?;
    assert_eq!(files, large_tree() as u64);
    // One directory after the other: no single command takes long.
    for directory in fs::read_dir(source(&slot))? {
        let directory = directory?;
        let expected = digests(&directory.path())?;
        let name = directory.file_name();
        let read = format!(
            "cd /mnt/{} && {NAMES} && {CONTENTS}",
            name.to_string_lossy()
        );
        let found = vm.guest.run(&read)?;
        let expected = format!("{}\n{}", expected.names, expected.contents);
        assert_eq!(found, expected, "{name:?}");
    }
    let sparse = fs::File::create(source(&slot).join("sparse"))?;
    sparse.write_all_at(b"the end", SPARSE - 7)?;
    assert_eq!(vm.guest.number("stat -c %s /mnt/sparse")?, SPARSE);
    let end = format!(
        "dd if=/mnt/sparse bs=4k skip={} 2>/dev/null",
        SPARSE / 4096 - 1
    );
    assert_eq!(vm.guest.run(&format!("{end} | tail -c 7"))?, "the end");
    vm.power_off()?;
    Ok(())
}

#[test]
fn tree_reads_as_it_is_on_the_host_and_cannot_be_changed() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, "")?;
    plant(&source(&slot), 500)?;
    plant_odd_names(&source(&slot))?;
    fs::copy(lab.program(), source(&slot).join("big"))?;
    let mut vm = slot.boot()?;
    let backend = wait_child(vm.pid(), None)?;
    vm.guest.run(MOUNT)?;
    expect_tree(&mut vm, &slot)?;
    // Once more, from the page cache.
    expect_tree(&mut vm, &slot)?;

    // However it is mounted.
    vm.guest
        .run("mkdir /tmp/w && mount -t virtiofs share /tmp/w")?;
    for change in [
        "touch /tmp/w/new",
        "mkdir /tmp/w/new",
        "rm -f /tmp/w/big",
        "mv -f /tmp/w/big /tmp/w/new",
        "ln -s big /tmp/w/new",
        "ln /tmp/w/big /tmp/w/new",
        "chmod 0 /tmp/w/big",
        "echo no >/tmp/w/big",
    ] {
        let (said, status) = vm.guest.attempt(change)?;
        assert_ne!(status, 0, "{change}: {said}");
    }
    expect_tree(&mut vm, &slot)?;
    vm.power_off()?;
    wait_gone(backend)
}

#[test]
fn programs_run_from_a_share_while_eight_readers_press_memory() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, "queues = 4\n[machine]\nvcpus = 2\nmemory = 128\n")?;
    // A program that needs nothing but itself: ours.
    fs::copy(lab.program(), source(&slot).join("program"))?;
    let line = |reader: usize| format!("reader {reader} reads this again and again\n");
    for reader in 0..8 {
        let content = line(reader).repeat(16 << 20 >> 5);
        fs::write(source(&slot).join(format!("file{reader}")), content)?;
    }
    let mut vm = slot.boot()?;
    vm.guest.run(MOUNT)?;
    vm.guest.run(
        "for n in 0 1 2 3 4 5 6 7; do \
         (sha256sum file$n >/tmp/sum$n; echo $? >/tmp/done$n) & done",
    )?;
    let version = vm.guest.run("/mnt/program --version")?;
    assert!(version.starts_with("slotvmm "), "{version}");
    vm.guest
        .run("for n in 0 1 2 3 4 5 6 7; do until [ -s /tmp/done$n ]; do :; done; done")?;
    let sums = vm.guest.run("cat /tmp/sum?")?;
    for (reader, sum) in sums.lines().enumerate() {
        let content = fs::read(source(&slot).join(format!("file{reader}")))?;
        let expected = fixture::share::digest(&content);
        assert_eq!(sum.split(' ').next(), Some(expected.as_str()), "{reader}");
    }
    assert_eq!(sums.lines().count(), 8);
    vm.power_off()?;
    Ok(())
}

#[test]
fn share_outlives_pauses_and_another_driver() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, "")?;
    plant(&source(&slot), 200)?;
    let mut vm = slot.boot()?;
    let backend = wait_child(vm.pid(), None)?;
    for _ in 0..2 {
        vm.guest.run(MOUNT)?;
        slot.call(&["pause", "slot1"])?.expect_code(0)?;
        slot.call(&["resume", "slot1"])?.expect_code(0)?;
        expect_tree(&mut vm, &slot)?;
        vm.guest.run("cd / && umount /mnt")?;
        vm.guest.run(REBIND)?;
    }
    assert_eq!(wait_child(vm.pid(), None)?, backend, "the same backend");
    vm.power_off()?;
    Ok(())
}

#[test]
fn guest_that_reboots_with_a_mounted_share_mounts_it_again() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, "")?;
    plant(&source(&slot), 100)?;
    for _ in 0..2 {
        let mut vm = slot.boot()?;
        let backend = wait_child(vm.pid(), None)?;
        vm.guest.run(MOUNT)?;
        expect_tree(&mut vm, &slot)?;
        // A file is open, nothing is unmounted.
        vm.guest.run("exec 9<dir0000/file5")?;
        vm.guest.send("reboot -f")?;
        vm.wait()?.expect_code(10)?;
        wait_gone(backend)?;
    }
    Ok(())
}

#[test]
fn kernel_that_another_one_starts_mounts_the_share() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, "")?;
    plant(&source(&slot), 100)?;
    let program = std::env::var_os("SLOTVMM_PROBE_BIN").context("SLOTVMM_PROBE_BIN is not set")?;
    fs::copy(program, source(&slot).join("probe"))?;
    let mut vm = slot.boot()?;
    let backend = wait_child(vm.pid(), None)?;
    vm.guest.run(MOUNT)?;
    expect_tree(&mut vm, &slot)?;
    vm.guest.run("exec 9<dir0000/file5")?;
    vm.guest
        .run("mkdir /old && load squashfs && mount -t squashfs -o ro /dev/vda /old")?;
    let cmdline = vm.guest.run("cat /proc/cmdline")?;
    ensure!(!cmdline.contains(AGAIN), "{cmdline}");

    // Requests may be under way: nothing is unmounted, no device is reset before the next kernel
    // finds it.
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
    expect_tree(&mut vm, &slot)?;
    assert_eq!(wait_child(vm.pid(), None)?, backend, "the same backend");
    vm.guest.run("cd / && umount /mnt")?;
    vm.power_off()?;
    Ok(())
}

#[test]
fn guest_does_not_notice_that_its_backend_is_killed() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, "")?;
    plant(&source(&slot), 300)?;
    fs::File::create(source(&slot).join("huge"))?.set_len(1 << 30)?;
    let mut vm = slot.boot()?;
    vm.guest.run(MOUNT)?;
    vm.guest.run("find . >/tmp/names")?;
    let mut backend = wait_child(vm.pid(), None)?;
    for _ in 0..3 {
        vm.guest.run(
            "rm -f /tmp/ended; echo 3 >/proc/sys/vm/drop_caches; \
             (dd if=huge bs=64k count=4096 2>/dev/null | wc -c >/tmp/ended) &",
        )?;
        vm.guest.run(
            "until grep -q 'rchar: [0-9]\\{7\\}' /proc/$(pidof dd)/io 2>/dev/null; do :; done",
        )?;
        kill_process(backend)?;
        backend = wait_child(vm.pid(), Some(backend))?;
        // The reader reads on, and names that the guest knows lead where they led.
        vm.guest.run("until [ -s /tmp/ended ]; do :; done")?;
        assert_eq!(vm.guest.number("cat /tmp/ended")?, 1 << 28);
        vm.guest
            .run("cat dir0001/file7 dir0002/file99 >/dev/null")?;
    }
    fs::remove_file(source(&slot).join("huge"))?;
    vm.guest.run("cd / && umount /mnt")?;
    vm.guest.run(MOUNT)?;
    expect_tree(&mut vm, &slot)?;
    let status = slot.call(&["status", "slot1"])?.expect_code(0)?.stdout;
    assert!(!status.contains("reset"), "{status}");
    vm.power_off()?;
    Ok(())
}

#[test]
fn without_a_restart_requests_fail_and_status_says_so() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, "on_backend_exit = \"fail\"\n")?;
    plant(&source(&slot), 100)?;
    let mut vm = slot.boot()?;
    vm.guest.run(MOUNT)?;
    let backend = wait_child(vm.pid(), None)?;
    kill_process(backend)?;
    wait_gone(backend)?;
    let (said, status) = vm.guest.attempt("cat dir0000/file5")?;
    assert_ne!(status, 0, "{said}");
    assert!(said.contains("not connected"), "{said}");
    let status = slot.call(&["status", "slot1"])?.expect_code(0)?.stdout;
    assert!(
        status.contains("fs14 (virtio-fs) needs a reset"),
        "{status}"
    );

    vm.guest.run("cd / && umount /mnt")?;
    vm.guest.run(REBIND)?;
    vm.guest.run(MOUNT)?;
    expect_tree(&mut vm, &slot)?;
    vm.power_off()?;
    Ok(())
}

#[test]
fn overlay_keeps_what_is_written_on_the_data_image() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, "")?;
    plant(&source(&slot), 200)?;
    let before = digests(&source(&slot))?;
    let overlay = [
        "load virtiofs && load ext4 && load overlay && mkdir -p /tmp/ro /tmp/rw",
        "mount -t virtiofs -o ro share /tmp/ro",
        "mount -t ext4 /dev/vdb /tmp/rw && mkdir -p /tmp/rw/store /tmp/rw/work",
        "mount -t overlay overlay -o \
         lowerdir=/tmp/ro,upperdir=/tmp/rw/store,workdir=/tmp/rw/work /mnt && cd /mnt",
    ];
    let mut vm = slot.boot()?;
    for step in overlay {
        vm.guest.run(step)?;
    }
    expect_tree(&mut vm, &slot)?;
    vm.guest.run(
        "echo more >>dir0000/file5 && rm dir0001/file9 && echo new >new && mv dir0000/file6 moved",
    )?;
    vm.guest.run("cd / && umount /mnt && umount /tmp/rw")?;
    vm.power_off()?;
    assert_eq!(digests(&source(&slot))?, before, "the host's directory");

    let mut vm = slot.boot()?;
    for step in overlay {
        vm.guest.run(step)?;
    }
    assert_eq!(
        vm.guest.run("tail -n 1 dir0000/file5; cat new")?,
        "more\nnew"
    );
    vm.guest
        .run("[ ! -e dir0001/file9 ] && [ ! -e dir0000/file6 ] && [ -s moved ]")?;
    vm.power_off()?;
    Ok(())
}

#[test]
fn changes_on_the_host_are_seen_and_killed_slots_leave_nothing() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab, "")?;
    fs::create_dir(source(&slot).join("old-package"))?;
    fs::write(source(&slot).join("old-package/file"), "old")?;
    let mut vm = slot.boot()?;
    vm.guest.run(MOUNT)?;
    assert_eq!(vm.guest.run("cat old-package/file")?, "old");
    assert_ne!(vm.guest.attempt("cat new-package/file")?.1, 0);
    fs::create_dir(source(&slot).join("new-package"))?;
    fs::write(source(&slot).join("new-package/file"), "new")?;
    vm.guest.run("until [ -e new-package ]; do :; done")?;
    assert_eq!(vm.guest.run("cat new-package/file")?, "new");

    // The root itself is replaced: the old one goes on being served.
    fs::rename(source(&slot), slot.path("moved"))?;
    fs::create_dir(source(&slot))?;
    assert_eq!(vm.guest.run("cat new-package/file")?, "new");
    fs::remove_dir_all(slot.path("moved"))?;
    vm.guest.run("echo 3 >/proc/sys/vm/drop_caches")?;
    let (said, status) = vm.guest.attempt("cat new-package/file")?;
    assert_ne!(status, 0, "{said}");
    assert_eq!(slot.state()?, "running");

    let backend = wait_child(vm.pid(), None)?;
    vm.signal(nix::sys::signal::Signal::SIGKILL)?;
    vm.wait()?;
    wait_gone(backend)
}
