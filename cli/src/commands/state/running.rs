//! `snapshot` of a running slot: its process fills the image that is opened here, since only it
//! knows what its guest writes; the snapshot gets its name here once the image is complete.

use std::fs;
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt as _;

use devices::failpoint;
use indicatif::{ProgressBar, ProgressStyle};
use store::copy::Method;
use store::snapshot::{Consistency, Facts, Manifest, begin};
use store::{Name, SnapshotRef, Store};
use vmm::snapshot::{Backend, Pause, Report, SnapshotSpec};

use crate::args::Snapshot;
use crate::client::{Client, Following, Frozen, Interrupts};
use crate::commands::CommandError;
use crate::config::HostFile;

/// The disk that a state is the image of.
const DISK: &str = "data";

/// What the slot's process said of a snapshot that it took.
#[derive(Default)]
struct Taken {
    pause: Option<Pause>,
    copied: u64,
}

/// Takes a snapshot of `state`, which the slot behind `client` runs with.
pub(super) fn snapshot(
    client: &Client,
    (store, state): (&Store, &Name),
    (args, host): (&Snapshot, &HostFile),
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
        ..limited(args, host)
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

/// A snapshot within the limits that were typed, that host.toml has, or that are usual.
fn limited(args: &Snapshot, host: &HostFile) -> SnapshotSpec {
    let usual = SnapshotSpec::of(DISK);
    let rate = host.snapshot.rate.as_ref().map(|rate| rate.value.0);
    let pause = host
        .snapshot
        .pause_limit
        .as_ref()
        .map(|limit| limit.value.0);
    let rate = args.rate.or(rate.and_then(|mib| u32::try_from(mib).ok()));
    let pause = pause.and_then(|ms| u32::try_from(ms).ok());
    SnapshotSpec {
        rate: rate.and_then(|mib| NonZeroU64::new(u64::from(mib) << 20)),
        pause_limit_ms: args.pause_limit.or(pause).unwrap_or(usual.pause_limit_ms),
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
