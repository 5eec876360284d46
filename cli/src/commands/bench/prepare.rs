//! What boots need besides the slot: copies of the disks that they write to, plain files of the kernel
//! for peers, and directories for sockets.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use boot_bench::machine::{Access, Disk as BenchDisk, Machine};
use store::copy::{Method, copy_image};
use tempfile::TempDir;
use vmm::boot::{self, Payload};

use super::super::{CommandError, Context};
use super::overlay::{self, Replaced};
use crate::args::BenchBoot;
use crate::config::ConfigDir;
use crate::disk;
use crate::resolve::{Disk, Slot, Use, plan};
use crate::rundir::RunDir;

/// Everything for boots of one slot. It goes with its value, and nobody else runs the slot meanwhile.
#[derive(Debug)]
pub(super) struct Stage {
    /// What every monitor boots.
    pub(super) machine: Machine,
    /// Images that are copied anew for each boot.
    copies: Vec<Copied>,
    /// On a disk: copies and kernel.
    _scratch: TempDir,
    /// In memory, where run directories are: configuration and sockets.
    sockets: TempDir,
    about: Vec<(String, String)>,
    left_out: Vec<String>,
    /// Removed last.
    _claim: RunDir,
}

/// An image that boots write to.
#[derive(Debug)]
struct Copied {
    /// As the slot's disk was.
    base: PathBuf,
    /// What a boot gets.
    image: PathBuf,
}

impl Stage {
    /// Claims the slot and copies what is needed.
    pub(super) fn set(
        args: &BenchBoot,
        context: &Context,
        slot: &Slot,
    ) -> Result<Self, CommandError> {
        let claim = RunDir::claim(&slot.paths).map_err(|source| CommandError::RunDir {
            slot: slot.name.clone(),
            source,
        })?;
        let failed = CommandError::on("make a directory for copies; --scratch names another place");
        let place = args.scratch.as_ref().unwrap_or(&slot.paths.cache_dir);
        fs::create_dir_all(place).map_err(&failed)?;
        let scratch = tempfile::Builder::new().prefix("bench-").tempdir_in(place);
        let scratch = scratch.map_err(&failed)?;
        let sockets = tempfile::Builder::new()
            .prefix("b")
            .tempdir_in(&slot.paths.run_dir);
        let sockets = sockets.map_err(CommandError::on("make a directory for sockets"))?;
        let (copies, replaced, disks) = copy_disks(slot, scratch.path())?;
        overlay::write(context, &args.slot, (slot, &replaced), sockets.path())?;
        // As our own boots resolve it, or peers would have parameters for what was left out.
        let booted = as_booted(sockets.path(), slot)?;
        let payload = boot::open(&plan::vm_config(&booted).boot)?;
        let exported = payload
            .export(scratch.path())
            .map_err(CommandError::on("copy the kernel"))?;
        Ok(Self {
            machine: Machine {
                vcpus: booted.machine.vcpus,
                memory_mib: booted.machine.memory_mib,
                kernel: exported.kernel,
                initrd: exported.initrd,
                cmdline: payload.params().to_owned(),
                disks,
                cid: booted.vsock.as_ref().map(|vsock| vsock.cid),
            },
            about: describe(slot, &payload),
            left_out: left_out(slot),
            copies,
            _scratch: scratch,
            sockets,
            _claim: claim,
        })
    }

    /// The configuration directory of our own boots, also the place of their sockets.
    pub(super) fn config(&self) -> &Path {
        self.sockets.path()
    }

    /// A new directory for one boot of a peer.
    pub(super) fn boot_dir(&self) -> io::Result<TempDir> {
        tempfile::Builder::new()
            .prefix("p")
            .tempdir_in(self.sockets.path())
    }

    /// Makes every disk as it was.
    pub(super) fn fresh_disks(&self) -> io::Result<()> {
        self.copies.iter().try_for_each(|copied| {
            let to = File::create(&copied.image)?;
            copy_image(&File::open(&copied.base)?, &to, Method::Auto, &|_| {}).map(drop)
        })
    }

    /// The machine in words.
    pub(super) fn describe(&self) -> Vec<(String, String)> {
        self.about.clone()
    }

    /// What boots do not have that the slot has.
    pub(super) fn left_out(&self) -> Vec<String> {
        self.left_out.clone()
    }
}

/// The slot that the configuration in `dir` describes.
fn as_booted(dir: &Path, slot: &Slot) -> Result<Slot, CommandError> {
    let config = ConfigDir::new(dir.to_owned());
    Ok(Slot::resolve(&config.host()?, &config.slot(&slot.name)?)?)
}

type Disks = (Vec<Copied>, Vec<Replaced>, Vec<BenchDisk>);

/// Copies the disks that are written to, as they are now.
fn copy_disks(slot: &Slot, scratch: &Path) -> Result<Disks, CommandError> {
    let (mut copies, mut replaced, mut disks) = (Vec::new(), Vec::new(), Vec::new());
    for disk in &slot.disks {
        let (path, access) = match disk.usage {
            Use::ReadOnly => (disk.path.clone(), Access::ReadOnly),
            Use::Exclusive => {
                let copied = copy(disk, scratch)?;
                let image = copied.image.clone();
                replaced.push(Replaced::new(disk, image.clone()));
                copies.push(copied);
                (image, Access::ReadWrite)
            }
        };
        disks.push(BenchDisk { path, access });
    }
    Ok((copies, replaced, disks))
}

/// Copies one, or makes it in the copy's place when there is none yet.
fn copy(disk: &Disk, scratch: &Path) -> Result<Copied, CommandError> {
    let base = scratch.join(format!("{}.base", disk.id));
    let image = scratch.join(format!("{}.img", disk.id));
    let failed = CommandError::on("copy the slot's disks");
    if let (disk::Presence::WillBeCreated, Some(create)) = (disk::inspect(disk)?, &disk.create) {
        let made = Disk {
            path: base.clone(),
            create: Some(crate::resolve::Create {
                directory: None,
                ..create.clone()
            }),
            ..disk.clone()
        };
        disk::open(&made)?;
        return Ok(Copied { base, image });
    }
    // Locked until it is copied: nobody writes to it meanwhile.
    let from = disk::open(disk)?;
    if !from.metadata().map_err(&failed)?.is_file() {
        return Err(CommandError::NoCopy {
            disk: disk.id.clone(),
            path: disk.path.clone(),
        });
    }
    let to = File::create(&base).map_err(&failed)?;
    copy_image(&from, &to, Method::Auto, &|_| {}).map_err(&failed)?;
    Ok(Copied { base, image })
}

fn describe(slot: &Slot, payload: &Payload) -> Vec<(String, String)> {
    let kernel = payload.describe();
    let version = kernel.version.unwrap_or_else(|| kernel.kernel.clone());
    let pairs = [
        ("kernel", version),
        ("parameters", payload.params().to_owned()),
        ("vCPUs", slot.machine.vcpus.to_string()),
        ("memory", format!("{} MiB", slot.machine.memory_mib)),
        ("disks", slot.disks.len().to_string()),
        ("ready", slot.ready.when.to_string()),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

fn left_out(slot: &Slot) -> Vec<String> {
    let mut notes = Vec::new();
    if !slot.nics.is_empty() {
        notes.push(
            "The slot's network card is left out of every boot, and its address out of the parameters."
                .to_owned(),
        );
    }
    if let crate::resolve::ReadyWhen::Tcp(_) = slot.ready.when {
        notes.push(
            "Without a card nothing can be connected to, so that `ready` is not seen: --mark ready=TEXT \
             names a text on the console."
                .to_owned(),
        );
    }
    if slot.disks.iter().any(|disk| disk.usage == Use::Exclusive) {
        notes.push("Every boot writes to fresh copies of the slot's disks.".to_owned());
    }
    notes
}
