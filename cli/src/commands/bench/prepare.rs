//! What boots need besides the slot: copies of the disks that they write to, plain files of the kernel
//! for peers, and directories for sockets.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use boot_bench::machine::{Access, Disk as BenchDisk, Machine, Share as BenchShare};
use store::copy::{Method, copy_image};
use tempfile::TempDir;
use vmm::boot::{self, Payload};

use super::super::{CommandError, Context};
use super::berth::{Base, Berth};
use super::cards::{self, Cards};
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
    /// The cards of every boot.
    pub(super) cards: Cards,
    /// Where boots in turns happen.
    pub(super) berth: Berth,
    /// The slot's disks as they were.
    bases: Vec<Base>,
    /// On a disk: copies and kernel.
    scratch: TempDir,
    /// In memory, where run directories are: configuration and sockets.
    sockets: TempDir,
    about: Vec<(String, String)>,
    notes: Vec<String>,
    /// Removed last.
    _claim: RunDir,
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
        let bases = copy_disks(slot, scratch.path())?;
        let cards = Cards::prepare(args, slot);
        let place = (scratch.path(), sockets.path().to_owned());
        let berth = Berth::make(context, (&args.slot, slot), (&bases, &cards), place)?;
        // As our own boots resolve it, or peers would have parameters for what was left out.
        let booted = as_booted(berth.config(), slot)?;
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
                disks: disks(slot, &berth),
                nics: booted.nics.iter().map(cards::for_peers).collect(),
                shares: shares(slot),
                cid: booted.vsock.as_ref().map(|vsock| vsock.cid),
            },
            about: describe(&booted, &payload),
            notes: notes(slot, &cards),
            cards,
            berth,
            bases,
            scratch,
            sockets,
            _claim: claim,
        })
    }

    /// Places for so many machines at once.
    pub(super) fn berths(
        &self,
        context: &Context,
        (argument, slot): (&str, &Slot),
        count: u32,
    ) -> Result<Vec<Berth>, CommandError> {
        let berths = (1..=count).map(|number| {
            let name = number.to_string();
            let scratch = self.scratch.path().join(&name);
            let place = (scratch.as_path(), self.sockets.path().join(&name));
            Berth::make(context, (argument, slot), (&self.bases, &self.cards), place)
        });
        berths.collect()
    }

    /// A new directory for one boot of a peer.
    pub(super) fn boot_dir(&self) -> io::Result<TempDir> {
        tempfile::Builder::new()
            .prefix("p")
            .tempdir_in(self.sockets.path())
    }

    /// The machine in words.
    pub(super) fn describe(&self) -> Vec<(String, String)> {
        self.about.clone()
    }

    /// How boots differ from those of the slot.
    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

/// The slot that the configuration in `dir` describes.
fn as_booted(dir: &Path, slot: &Slot) -> Result<Slot, CommandError> {
    let config = ConfigDir::new(dir.to_owned());
    Ok(Slot::resolve(&config.host()?, &config.slot(&slot.name)?)?)
}

/// Disks of the machine, in order.
fn disks(slot: &Slot, berth: &Berth) -> Vec<BenchDisk> {
    let disks = slot.disks.iter().map(|disk| match berth.image(&disk.id) {
        Some(image) => BenchDisk {
            path: image.to_owned(),
            access: Access::ReadWrite,
        },
        None => BenchDisk {
            path: disk.path.clone(),
            access: Access::ReadOnly,
        },
    });
    disks.collect()
}

fn shares(slot: &Slot) -> Vec<BenchShare> {
    let shares = slot.shares.iter().map(|share| BenchShare {
        tag: share.tag.clone(),
        queues: share.queues,
    });
    shares.collect()
}

/// Copies the disks that are written to, as they are now.
fn copy_disks(slot: &Slot, scratch: &Path) -> Result<Vec<Base>, CommandError> {
    let written = slot
        .disks
        .iter()
        .filter(|disk| disk.usage == Use::Exclusive);
    let bases = written.map(|disk| {
        Ok(Base {
            disk: disk.clone(),
            path: copy(disk, scratch)?,
        })
    });
    bases.collect()
}

/// Copies one, or makes it in the copy's place when there is none yet.
fn copy(disk: &Disk, scratch: &Path) -> Result<PathBuf, CommandError> {
    let base = scratch.join(format!("{}.base", disk.id));
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
        return Ok(base);
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
    Ok(base)
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
        ("network cards", slot.nics.len().to_string()),
        ("ready", slot.ready.when.to_string()),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

fn notes(slot: &Slot, cards: &Cards) -> Vec<String> {
    let mut notes = cards.notes.clone();
    if let crate::resolve::ReadyWhen::Tcp(_) = slot.ready.when {
        notes.push(
            "Nobody connects to the guest, so that `ready` is not seen: --mark ready=TEXT names a text on \
             the console."
                .to_owned(),
        );
    }
    if !slot.shares.is_empty() {
        notes.push(
            "Other monitors have the shared directories from slotvmm's own backend, started before them as a \
             part of the boot, and without a window."
                .to_owned(),
        );
    }
    if slot.disks.iter().any(|disk| disk.usage == Use::Exclusive) {
        notes.push("Every boot writes to fresh copies of the slot's disks.".to_owned());
    }
    notes
}
