//! States on a ZFS pool that is full, or fills up meanwhile: commands that need space say so and leave
//! nothing, those that give it back work, and the guest of a running slot goes on then.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use fixture::disk::{self, Kind, Mounted};
use fixture::{Lab, Slot, TestVm};

/// Size of the pool in MiB. ZFS keeps half of so small a one for itself.
const POOL_MIB: u64 = 320;

/// MiB of noise in the image of a state.
const NOISE_MIB: u64 = 24;

/// What a command says that finds no space.
const FULL: &str = "make room there";

/// Writes to the last MiB of the guest's disk, past its page cache.
const WRITE: &str =
    "dd if=/dev/urandom of=/dev/vdb bs=64k seek=1008 count=16 oflag=direct conv=notrunc";

/// A file that takes the space of a pool.
struct Ballast(PathBuf);

impl Ballast {
    /// Takes so many MiB.
    fn take(&self, mib: u64) -> Result<()> {
        let mut noise = File::open("/dev/urandom")?.take(mib << 20);
        let mut file = File::create(&self.0)?;
        std::io::copy(&mut noise, &mut file).context("No ballast")?;
        file.sync_all().context("Cannot sync the ballast")
    }

    /// Takes all that there is.
    fn fill(&self) -> Result<()> {
        let mut noise = vec![0; 1 << 20];
        File::open("/dev/urandom")?.read_exact(&mut noise)?;
        let mut file = File::options().create(true).append(true).open(&self.0)?;
        loop {
            let before = file.metadata()?.len();
            for piece in [noise.len(), 4096] {
                while file.write_all(&noise[..piece]).is_ok() {}
            }
            // ZFS takes what is not yet on the disk for more than it will be.
            file.sync_all().context("Cannot sync the ballast")?;
            if file.metadata()?.len() == before {
                return Ok(());
            }
        }
    }

    fn remove(&self) -> Result<()> {
        fs::remove_file(&self.0).context("Cannot remove the ballast")
    }
}

fn done(slot: &Slot, arguments: &[&str]) -> Result<()> {
    slot.call(arguments)?.expect_code(0)?;
    Ok(())
}

/// Every data set and snapshot of the pool.
fn sets() -> Result<String> {
    let mut list = Command::new("zfs");
    list.args(["list", "-H", "-t", "all", "-o", "name,mountpoint,mounted"]);
    let listed = list.output().context("Cannot start zfs")?;
    ensure!(listed.status.success(), "zfs failed: {listed:?}");
    Ok(String::from_utf8(listed.stdout)?)
}

/// Each command fails, says what it needs, and leaves the pool and the store as they were.
fn refuses(slot: &Slot, commands: &[&[&str]]) -> Result<()> {
    let before = sets()?;
    for arguments in commands {
        let ended = slot.call(arguments)?;
        println!("{}", ended.stderr.trim());
        ended.expect_error(31, FULL)?;
        let after = sets()?;
        ensure!(before == after, "{arguments:?} left {after}, not {before}");
        done(slot, &["state", "fsck"])?;
    }
    Ok(())
}

/// A slot with the state `dev` and its snapshot `base`, and `web`, which has a content of its own.
/// Returns where that was imported from.
fn furnish(slot: &Slot) -> Result<String> {
    slot.make_state()?;
    let mut vm = slot.boot()?;
    vm.guest.run("load ext4 && mount -t ext4 /dev/vdb /mnt")?;
    let noise = format!("dd if=/dev/urandom of=/mnt/noise bs=1M count={NOISE_MIB} && umount /mnt");
    vm.guest.run(&noise)?;
    vm.power_off()?;
    done(slot, &["snapshot", "slot1", "base"])?;
    let exported = slot.path("exported").to_string_lossy().into_owned();
    done(slot, &["state", "export", "dev", &exported])?;
    done(slot, &["state", "import", "web", &exported])?;
    Ok(exported)
}

/// The guest writes, or is told that it cannot; it and its slot live.
fn try_to_write(slot: &Slot, vm: &mut TestVm) -> Result<()> {
    let (said, status) = vm.guest.attempt(&format!("{WRITE} 2>&1"))?;
    println!("The guest of a full pool: {status}, {}", said.trim());
    vm.guest.run("true")?;
    ensure!(slot.state()? == "running");
    Ok(())
}

#[test]
fn full_zfs_pool_fails_what_needs_space_alone() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let (file, place) = (slot.path("host.img"), slot.path("state"));
    let Some(_mounted) = Mounted::of_kind(Kind::Zfs, (&file, POOL_MIB), &place)? else {
        return Ok(());
    };
    let exported = furnish(&slot)?;
    let mut vm = slot.boot()?;
    let ballast = Ballast(place.join("states/.ballast"));
    let reserve = Ballast(place.join("states/.reserve"));

    reserve.take(NOISE_MIB / 6)?;
    ballast.fill()?;
    let commands: [&[&str]; 6] = [
        &["snapshot", "slot1", "s"],
        &["state", "create", "new"],
        &["state", "clone", "web", "new"],
        &["state", "clone", "web", "new", "--reset-identity"],
        &["state", "restore", "dev@base", "new"],
        &["state", "import", "new", &exported],
    ];
    refuses(&slot, &commands).context("Full")?;
    try_to_write(&slot, &mut vm)?;

    reserve.remove()?;
    refuses(&slot, &commands[5..]).context("Filled up meanwhile")?;

    ballast.fill()?;
    try_to_write(&slot, &mut vm)?;
    done(&slot, &["state", "delete", "web", "--yes"])?;
    vm.guest.run(&format!("until {WRITE}; do sleep 1; done"))?;
    done(&slot, &["snapshot", "slot1", "s"])?;
    ballast.remove()?;
    let written = vm
        .guest
        .run("dd if=/dev/vdb bs=64k skip=1008 status=none | md5sum")?;
    vm.power_off()?;
    done(&slot, &["state", "restore", "dev@s", "new"])?;
    done(&slot, &["state", "fsck"])?;
    let image = place.join("states/new/data.img");
    disk::check_ext4(&image)?;
    ensure!(written == md5_of_last_mib(&image)?, "The snapshot differs");
    Ok(())
}

/// What md5sum says of the last MiB of an image.
fn md5_of_last_mib(image: &std::path::Path) -> Result<String> {
    let mut command = Command::new("sh");
    command.args(["-c", "tail -c 1048576 \"$1\" | md5sum", "sh"]);
    let output = command.arg(image).output().context("Cannot start sh")?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
