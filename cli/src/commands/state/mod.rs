//! `state` and `snapshot`: states of slots and their snapshots. The work is the crate `store`'s;
//! here is what is asked, said and waited for.

mod change;
mod control;
mod list;
mod running;
mod say;
mod tidy;
mod transfer;

use hostnet::slot::SlotName;
use indicatif::{ProgressBar, ProgressStyle};
use store::identity::Identity;
use store::{DataSets, Name, Store};

pub(super) use self::change::snapshot;
pub(crate) use self::say::{Colours, tagged};
use super::{CommandError, Context};
use crate::args::StateCommand;
use crate::exit::Exit;
use crate::resolve::Paths;

/// Dispatches `state`.
pub(super) fn state(command: &StateCommand, context: &Context) -> Result<Exit, CommandError> {
    match command {
        StateCommand::List => list::list(context),
        StateCommand::Create {
            name,
            from_slot: None,
        } => change::create(name, context),
        StateCommand::Create {
            name,
            from_slot: Some(slot),
        } => change::adopt(name, slot, context),
        StateCommand::Snapshot(args) => change::snapshot(args, context),
        StateCommand::Assign(args) => change::assign(args, context),
        StateCommand::Clone {
            source,
            new,
            reset_identity,
        } => {
            let identity = if *reset_identity {
                Identity::Reset
            } else {
                Identity::Keep
            };
            change::clone((source, identity), new, context)
        }
        StateCommand::Delete(args) => tidy::delete(args, context),
        StateCommand::Migrate { state, slot } => change::migrate(state, slot, context),
        StateCommand::Restore { snapshot, new } => change::restore(snapshot, new, context),
        StateCommand::Reset(args) => tidy::reset(args, context),
        StateCommand::Gc(args) => tidy::gc(args, context),
        StateCommand::Export(args) => transfer::export(args, context.text_only("state export")?),
        StateCommand::Import(args) => transfer::import(args, context),
        StateCommand::Fsck(args) => tidy::fsck(args, context),
    }
}

/// The host's store.
fn store(context: &Context) -> Result<Store, CommandError> {
    let host = context.config.host()?;
    let waiting = |holder: &store::holder::Holder| eprintln!("Waiting for {holder}");
    let method = host.snapshot.backend.as_ref().map(|set| set.value.0);
    let store = Paths::of(&host).store();
    let configured = host.data_set.as_ref().map(|set| set.value.0.as_str());
    let sets = DataSets::find(&store.layout().states(), configured)?;
    Ok(store
        .with_method(method.unwrap_or_default())
        .with_data_sets(sets)
        .when_waiting(waiting))
}

/// Fails when there is no slot of this name: neither configured nor known to the store.
fn require_slot(slot: &Name, store: &Store, context: &Context) -> Result<(), CommandError> {
    if store.layout().slot(slot).is_dir() {
        return Ok(());
    }
    let slot: SlotName = slot.as_str().parse()?;
    context.config.slot(&slot)?;
    Ok(())
}

/// The state that a slot has.
fn state_of(slot: &Name, store: &Store) -> Result<Name, CommandError> {
    store
        .state_of(slot)?
        .ok_or_else(|| CommandError::NoState { slot: slot.clone() })
}

/// Runs something that copies an image, with a bar on a terminal.
fn with_progress<T, E>(
    what: &str,
    copy: impl FnOnce(store::Progress<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what.to_owned());
    let result = copy(&|at, length| {
        bar.set_length(length);
        bar.set_position(at);
    });
    bar.finish_and_clear();
    result
}
