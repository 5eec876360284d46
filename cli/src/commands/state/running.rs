//! `snapshot` of a running slot: its process fills the image that is opened here, since only it
//! knows what its guest writes; the snapshot gets its name here once the image is complete.

use std::fs;
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt as _;

use devices::failpoint;
use hostnet::slot::SlotName;
use indicatif::{ProgressBar, ProgressStyle};
use store::copy::Method;
use store::snapshot::{Consistency, Facts, Manifest, begin};
use store::{Name, SnapshotRef, Store};
use vmm::snapshot::{Backend, Pause, Report, SnapshotSpec};

use crate::args::Snapshot;
use crate::client::{Client, Following, Frozen, Interrupts};
use crate::commands::{CommandError, Context};
use crate::config::RunningSnapshotFile;

/// The disk that a state is the image of.
const DISK: &str = "data";

/// What the slot's process said of a snapshot that it took.
#[derive(Default)]
struct Taken {
    pause: Option<Pause>,
    copied: u64,
}

/// Takes a snapshot of `state`, which the slot behind `client` runs with. `args` are
/// [`settled`] ones.
pub(super) fn snapshot(
    client: &Client,
    (store, state): (&Store, &Name),
    args: &Snapshot,
) -> Result<(Manifest, Option<Pause>), CommandError> {
    // Before there is anything to leave behind.
    let interrupts = Interrupts::block().map_err(CommandError::on("wait for signals"))?;
    if store.has_data_set(state)?
        && let Some(manifest) = of_data_set(client, (store, state), args, &interrupts)?
    {
        return Ok((manifest, None));
    }
    let image = fs::metadata(store.layout().image(state))
        .map_err(CommandError::on("inspect the state's image"))?;
    let spec = SnapshotSpec {
        identity: Some((image.dev(), image.ino())),
        backend: match store.method() {
            Method::Auto | Method::Zfs => Backend::Auto,
            Method::Reflink => Backend::Reflink,
            Method::Copy => Backend::Copy,
        },
        ..limited(args)
    };
    let pending = begin(store, state, &args.snapshot)?;
    failpoint::pass("the image is empty");
    let mut frozen = None;
    if args.fsfreeze {
        frozen = Some(client.freeze(&interrupts)?);
        failpoint::pass("frozen");
    }
    let place = store.layout().state(state);
    let mut following = client.snapshot(&spec, (pending.image_file(), &place))?;
    failpoint::pass("asked");
    let taken = follow(&mut following, &interrupts, frozen)?;
    failpoint::pass("done was heard");
    let facts = Facts {
        consistency: consistency(args),
        slot: Some(args.slot.to_string()),
        pause_us: taken.pause.map(|pause| pause.total_us),
        copied_bytes: taken.copied,
    };
    let manifest = pending.commit(facts)?;
    failpoint::pass("the snapshot has its name");
    Ok((manifest, taken.pause))
}

/// Takes one of a state that is a data set, without the slot's process.
fn of_data_set(
    client: &Client,
    (store, state): (&Store, &Name),
    args: &Snapshot,
    interrupts: &Interrupts,
) -> Result<Option<Manifest>, CommandError> {
    let frozen = match args.fsfreeze {
        true => Some(client.freeze(interrupts)?),
        false => None,
    };
    let name = (state, &args.snapshot);
    let manifest = store.snapshot_running(&args.slot, name, consistency(args))?;
    if let (Some(_), Some(frozen)) = (&manifest, frozen)
        && let Err(error) = frozen.thaw(interrupts)
    {
        // It is not what its manifest says.
        store.delete_snapshot(&SnapshotRef {
            state: Some(state.clone()),
            snapshot: args.snapshot.clone(),
        })?;
        return Err(error.into());
    }
    Ok(manifest)
}

/// What the snapshot will be worth.
fn consistency(args: &Snapshot) -> Consistency {
    match args.fsfreeze {
        true => Consistency::Filesystem,
        false => Consistency::Crash,
    }
}

/// What was typed, with what the slot's file says where nothing was, then what host.toml says.
pub(super) fn settled(args: &Snapshot, context: &Context) -> Result<Snapshot, CommandError> {
    let name: SlotName = args.slot.as_str().parse()?;
    let (slot, host) = (context.config.slot(&name)?, context.config.host()?);
    Ok(filled(args, [&slot.file.snapshot, &host.snapshot.running]))
}

/// What was typed, with what these say where nothing was, the first before the second.
fn filled(args: &Snapshot, files: [&RunningSnapshotFile; 2]) -> Snapshot {
    let rate = files.iter().find_map(|file| file.rate.as_ref());
    let limit = files.iter().find_map(|file| file.pause_limit.as_ref());
    let freeze = files.iter().find_map(|file| file.fsfreeze.as_ref());
    let freeze = freeze.is_some_and(|freeze| freeze.value);
    let rate = rate.and_then(|rate| u32::try_from(rate.value.0).ok());
    let limit = limit.and_then(|limit| u32::try_from(limit.value.0).ok());
    Snapshot {
        rate: args.rate.or(rate),
        pause_limit: args.pause_limit.or(limit),
        fsfreeze: args.fsfreeze || (freeze && !args.no_fsfreeze),
        ..Snapshot::of(args.slot.clone(), args.snapshot.clone())
    }
}

/// A snapshot within the limits of `args`, or usual ones.
fn limited(args: &Snapshot) -> SnapshotSpec {
    let usual = SnapshotSpec::of(DISK);
    SnapshotSpec {
        rate: args
            .rate
            .and_then(|mib| NonZeroU64::new(u64::from(mib) << 20)),
        pause_limit_ms: args.pause_limit.unwrap_or(usual.pause_limit_ms),
        ..usual
    }
}

/// Shows how it goes until it is done. A guest that is frozen goes on once the content is decided.
fn follow(
    following: &mut Following,
    interrupts: &Interrupts,
    mut frozen: Option<Frozen>,
) -> Result<Taken, CommandError> {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("Copying {wide_bar} {bytes}/{total_bytes} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut taken = Taken::default();
    loop {
        match following.next(interrupts)? {
            Report::Taken { pause, .. } => {
                taken.pause = pause;
                failpoint::pass("taken was heard");
                if let Some(frozen) = frozen.take() {
                    frozen.thaw(interrupts)?;
                }
            }
            Report::Progress { settled, size, .. } => {
                bar.set_length(size);
                bar.set_position(settled);
            }
            Report::Done { copied } => {
                bar.finish_and_clear();
                taken.copied = copied;
                return Ok(taken);
            }
            Report::Flushing | Report::Failed { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::ConfigDir;

    /// What becomes of `args` with these texts of host.toml and slot1.toml.
    fn filled_from(host: &str, slot: &str, change: impl FnOnce(&mut Snapshot)) -> Snapshot {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("slots")).unwrap();
        fs::write(dir.path().join("host.toml"), host).unwrap();
        fs::write(dir.path().join("slots/slot1.toml"), slot).unwrap();
        let config = ConfigDir::new(dir.path().to_owned());
        let slot = config.slot(&"slot1".parse().unwrap()).unwrap();
        let host = config.host().unwrap();
        let mut args = Snapshot::of("slot1".parse().unwrap(), "s".parse().unwrap());
        change(&mut args);
        filled(&args, [&slot.file.snapshot, &host.snapshot.running])
    }

    #[test]
    fn what_was_typed_wins_over_the_slot_s_file_and_that_over_the_host_s() {
        let host = "[snapshot]\nrate = 10\npause_limit = 20\nfsfreeze = true";
        let slot = "[snapshot]\nrate = 30\nfsfreeze = false";
        let both = filled_from(host, slot, |_| ());
        assert_eq!((both.rate, both.pause_limit), (Some(30), Some(20)));
        assert!(!both.fsfreeze);
        let typed = filled_from(host, slot, |args| {
            args.rate = Some(40);
            args.fsfreeze = true;
        });
        assert_eq!((typed.rate, typed.pause_limit), (Some(40), Some(20)));
        assert!(typed.fsfreeze);
        assert!(filled_from(host, "", |_| ()).fsfreeze);
        assert!(!filled_from(host, "", |args| args.no_fsfreeze = true).fsfreeze);
    }
}
