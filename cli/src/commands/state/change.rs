//! The verbs that make states and snapshots and say who has them.

use serde_json::json;
use store::copy::Copied;
use store::identity::Identity;
use store::snapshot::{Consistency, Manifest};
use store::{Conflict, Name, SnapshotRef, Store, StoreError};
use vmm::api::VmInfo;

use super::control::Slots;
use super::{require_slot, running, state_of, store, with_progress};
use crate::args::{Assign, Snapshot, Source};
use crate::client::{Ask, ClientError};
use crate::commands::{CommandError, Context, Voice};
use crate::exit::Exit;
use crate::output::size;

pub(super) fn create(name: &Name, context: &Context) -> Result<Exit, CommandError> {
    let store = store(context)?;
    context.info(&format!("Creating state '{name}'..."))?;
    store.create(name)?;
    let place = store.layout().state(name);
    let text = format!("State '{name}' created at {}", place.display());
    context.done(&text, &json!({ "state": name, "path": place }))?;
    context.info(&format!(
        "Assign it to a slot with: vm-state assign <slot> {name}"
    ))?;
    Ok(Exit::Success)
}

/// Makes the image that a slot has of its own a state.
pub(super) fn adopt(name: &Name, slot: &Name, context: &Context) -> Result<Exit, CommandError> {
    let store = store(context)?;
    require_slot(slot, &store, context)?;
    context.info(&format!("Creating state '{name}' from {slot}..."))?;
    let adopted = with_progress("Copying", |progress| store.adopt(slot, name, progress))?;
    if let Some(backup) = &adopted.backup {
        context.warn(&format!(
            "{slot} and the states are on different file systems, so the image was copied; the old \
             one is {}",
            backup.display()
        ))?;
    }
    let text = format!("State '{name}' has the image of {slot}, and {slot} has the state");
    let value = json!({ "state": name, "slot": slot, "backup": adopted.backup });
    context.done(&text, &value)?;
    Ok(Exit::Success)
}

/// Takes a snapshot of the state that a slot has.
pub(in crate::commands) fn snapshot(
    args: &Snapshot,
    context: &Context,
) -> Result<Exit, CommandError> {
    let (slot, snapshot) = (&args.slot, &args.snapshot);
    let store = store(context)?;
    require_slot(slot, &store, context)?;
    let state = state_of(slot, &store)?;
    context.info(&format!(
        "Creating snapshot of state '{state}' (from {slot})..."
    ))?;
    let client = context.client(slot.as_str())?;
    let (manifest, pause) = match client.ask::<VmInfo>(Ask::Info) {
        Ok(_) => {
            warn_of_crash_consistency(slot, context)?;
            let args = running::settled(args, context)?;
            running::snapshot(&client, (&store, &state), &args)?
        }
        // A slot that is just starting or ending holds the image, and is named then.
        Err(ClientError::NotRunning { .. }) => {
            let copy = |progress: store::Progress<'_>| store.snapshot(&state, snapshot, progress);
            (with_progress("Copying", copy)?, None)
        }
        Err(error) => return Err(error.into()),
    };
    let text = format!(
        "Snapshot created: {state}@{snapshot} ({})",
        worth(&manifest, slot)
    );
    let mut answer = json!(manifest);
    if let (Some(answer), Some(pause)) = (answer.as_object_mut(), pause) {
        answer.insert("pause".to_owned(), json!(pause));
    }
    context.done(&text, &answer)?;
    Ok(Exit::Success)
}

/// What users of `vm-state` are told before a running slot's snapshot.
fn warn_of_crash_consistency(slot: &Name, context: &Context) -> Result<(), CommandError> {
    if context.voice == Voice::Slotvmm {
        return Ok(());
    }
    context.warn(&format!(
        "{slot} is running - snapshot will be crash-consistent"
    ))?;
    context.warn(&format!(
        "For a clean snapshot, stop the slot first: slotvmm stop {slot}"
    ))
}

/// What a snapshot is and has cost, for people.
fn worth(manifest: &Manifest, slot: &Name) -> String {
    let copied = manifest.facts.copied_bytes;
    let shared = manifest.bytes.unwrap_or_default().saturating_sub(copied);
    let worth = match manifest.facts.consistency {
        Consistency::Stopped => format!("{slot} is stopped"),
        Consistency::Crash => "crash-consistent".to_owned(),
        Consistency::Filesystem => "filesystem-consistent".to_owned(),
    };
    let what = match manifest.facts.pause_us {
        None => worth,
        // Only the file system itself can do that.
        Some(0) => format!("{worth}, not paused: taken by ZFS between two writes"),
        Some(us) => format!("{worth}, paused for {}", ms(us)),
    };
    let (copied, shared) = (size(copied), size(shared));
    format!("{what}; {copied} copied, {shared} shared or empty")
}

fn ms(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

pub(super) fn assign(args: &Assign, context: &Context) -> Result<Exit, CommandError> {
    let (slot, state) = (&args.slot, &args.state);
    let store = store(context)?;
    require_slot(slot, &store, context)?;
    let conflict = if args.r#move {
        Conflict::Move
    } else {
        Conflict::Refuse
    };
    let assigned = store.assign(slot, state, conflict)?;
    if assigned.created {
        context.warn(&format!(
            "State '{state}' did not exist yet and was created"
        ))?;
    }
    if let Some(other) = &assigned.taken_from {
        context.warn(&format!("{other} has no state any more"))?;
    }
    if let Some(backup) = &assigned.backup {
        context.warn(&format!(
            "The image that {slot} had is now {}",
            backup.display()
        ))?;
    }
    let running = super::control::is_running(slot, context);
    if running {
        context.warn(&format!(
            "{slot} is currently running. Assignment will take effect after restart."
        ))?;
    }
    let text = format!("Assigned state '{state}' to {slot}");
    let value = json!({
        "slot": slot,
        "state": state,
        "previous": assigned.previous,
        "taken_from": assigned.taken_from,
        "backup": assigned.backup,
        "running": running,
    });
    context.done(&text, &value)?;
    let (next, verb) = if running {
        ("Restart the slot to use the new state", "restart")
    } else {
        ("Start the slot with", "start")
    };
    context.info(&format!("{next}: slotvmm {verb} {slot}"))?;
    Ok(Exit::Success)
}

pub(super) fn clone(
    (source, identity): (&Source, Identity),
    new: &Name,
    context: &Context,
) -> Result<Exit, CommandError> {
    let store = store(context)?;
    let state = match source {
        Source::State(state) => state.clone(),
        Source::Slot(slot) => state_of(slot, &store)?,
    };
    context.info(&format!("Cloning state '{state}' to '{new}'..."))?;
    let copied = with_progress("Copying", |progress| {
        store.clone_state((&state, identity), new, progress)
    });
    let copied = match copied {
        Err(error @ StoreError::InUse { .. }) => {
            clone_running((&store, &state, identity), new, context)
                .unwrap_or_else(|| Err(error.into()))?
        }
        copied => copied?,
    };
    let value = json!({
        "source": state,
        "state": new,
        "copied_bytes": copied.copied_bytes(),
    });
    context.done(&format!("State '{state}' cloned to '{new}'"), &value)?;
    context.info(&format!(
        "Assign it to a slot with: vm-state assign <slot> {new}"
    ))?;
    Ok(Exit::Success)
}

/// Clones a state that a guest writes, by a snapshot that is gone afterwards. None when no slot that
/// answers runs with it: then whatever holds the image is no guest.
fn clone_running(
    (store, state, identity): (&Store, &Name, Identity),
    new: &Name,
    context: &Context,
) -> Option<Result<Copied, CommandError>> {
    let slot = store.slot_of(state).ok().flatten()?;
    let client = context.client(slot.as_str()).ok()?;
    client.ask::<VmInfo>(Ask::Info).ok()?;
    let clone = || {
        let snapshot = format!("cloning-{}", std::process::id()).parse()?;
        let args = Snapshot::of(slot, snapshot);
        let args = running::settled(&args, context)?;
        running::snapshot(&client, (store, state), &args)?;
        let snapshot = SnapshotRef {
            state: Some(state.clone()),
            snapshot: args.snapshot,
        };
        let copied = with_progress("Copying", |progress| {
            store.restore((&snapshot, identity), new, progress)
        });
        // Also when the copy failed: nobody asked for the snapshot.
        store.delete_snapshot(&snapshot)?;
        Ok(copied?)
    };
    Some(clone())
}

pub(super) fn restore(
    snapshot: &SnapshotRef,
    new: &Name,
    context: &Context,
) -> Result<Exit, CommandError> {
    let store = store(context)?;
    context.info(&format!(
        "Restoring snapshot '{snapshot}' to state '{new}'..."
    ))?;
    let copied = with_progress("Copying", |progress| {
        store.restore((snapshot, Identity::Keep), new, progress)
    })?;
    let value = json!({
        "snapshot": snapshot.to_string(),
        "state": new,
        "copied_bytes": copied.copied_bytes(),
    });
    context.done(&format!("Snapshot restored to state '{new}'"), &value)?;
    context.info(&format!(
        "Assign it to a slot with: vm-state assign <slot> {new}"
    ))?;
    Ok(Exit::Success)
}

pub(super) fn migrate(state: &Name, slot: &Name, context: &Context) -> Result<Exit, CommandError> {
    let store = store(context)?;
    require_slot(slot, &store, context)?;
    context.info(&format!("Migrating state '{state}' to {slot}..."))?;
    let moved = store.migrate(state, slot, &Slots { context })?;
    if let Some(from) = &moved.assigned.taken_from {
        context.warn(&format!("{from} has no state any more"))?;
    }
    if let Some(backup) = &moved.assigned.backup {
        context.warn(&format!(
            "The image that {slot} had is now {}",
            backup.display()
        ))?;
    }
    let text = if moved.started {
        format!("Migration complete. {slot} is now running state '{state}'")
    } else {
        format!("{slot} has state '{state}'. Nothing here starts it: use `slotvmm run {slot}`")
    };
    let value = json!({
        "state": state,
        "slot": slot,
        "taken_from": moved.assigned.taken_from,
        "previous": moved.assigned.previous,
        "stopped": moved.stopped,
        "started": moved.started,
    });
    context.done(&text, &value)?;
    Ok(Exit::Success)
}
