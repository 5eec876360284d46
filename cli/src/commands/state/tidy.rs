//! The verbs that remove something, and the one that looks for what is wrong.

use std::io::{self, BufRead as _};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use store::fsck::{Finding, Mode, Remedy};
use store::{Keep, Name, Retention};

use super::{require_slot, state_of, store};
use crate::args::{Delete, Fsck, Gc, Reset, Target};
use crate::commands::{CommandError, Context};
use crate::exit::Exit;

/// Snapshots of a state that are kept when nothing else is said.
const DEFAULT_KEEP: u32 = 10;

/// Longest answer in bytes that is read.
const MAX_ANSWER: u64 = 64;

pub(super) fn delete(args: &Delete, context: &Context) -> Result<Exit, CommandError> {
    let store = store(context)?;
    match &args.target {
        Target::State(state) => {
            store.check_delete(state)?;
            let what = format!("state '{state}' and all its data");
            confirm(&what, args.yes.then_some(Agreed), context)?;
            context.info(&format!("Deleting state '{state}'..."))?;
            store.delete(state)?;
            let text = format!("State '{state}' deleted");
            context.done(&text, &json!({ "deleted": state }))?;
        }
        Target::Snapshot(snapshot) => {
            let what = format!("snapshot '{snapshot}'");
            confirm(&what, args.yes.then_some(Agreed), context)?;
            store.delete_snapshot(snapshot)?;
            let text = format!("Snapshot '{snapshot}' deleted");
            context.done(&text, &json!({ "deleted": snapshot.to_string() }))?;
        }
    }
    Ok(Exit::Success)
}

pub(super) fn reset(args: &Reset, context: &Context) -> Result<Exit, CommandError> {
    let slot = &args.slot;
    let store = store(context)?;
    require_slot(slot, &store, context)?;
    let state = state_of(slot, &store)?;
    let keep = if args.discard {
        let what = format!("the image of state '{state}'");
        confirm(&what, args.yes.then_some(Agreed), context)?;
        Keep::Nothing
    } else {
        Keep::Snapshot(before_reset()?)
    };
    let had_image = store.reset(&state, &keep)?;
    let kept = match &keep {
        Keep::Snapshot(snapshot) if had_image => Some(format!("{state}@{snapshot}")),
        _ => None,
    };
    let text = match &kept {
        Some(kept) => format!("State '{state}' has no image any more; it is kept as {kept}"),
        None => format!("State '{state}' has no image"),
    };
    context.done(
        &text,
        &json!({ "slot": slot, "state": state, "kept": kept }),
    )?;
    Ok(Exit::Success)
}

/// The name of the snapshot that a reset leaves.
fn before_reset() -> Result<Name, CommandError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.map(|since| since.as_secs()).unwrap_or_default();
    Ok(format!("before-reset-{seconds}").parse()?)
}

pub(super) fn gc(args: &Gc, context: &Context) -> Result<Exit, CommandError> {
    let store = store(context)?;
    let configured = context.config.host()?.snapshot.keep.map(|set| set.value.0);
    let keep = args.keep.clone().or(configured);
    let keep = keep.unwrap_or_else(|| Retention::newest(DEFAULT_KEEP));
    let states = match &args.state {
        Some(state) => vec![state.clone()],
        None => store
            .states()?
            .into_iter()
            .map(|state| state.state)
            .collect(),
    };
    let mut removed = Vec::new();
    for state in &states {
        let snapshots = if args.dry_run {
            store.expired(state, &keep)?
        } else {
            store.gc(state, &keep)?
        };
        removed.extend(
            snapshots
                .iter()
                .map(|snapshot| format!("{state}@{snapshot}")),
        );
    }
    let verb = if args.dry_run {
        "Would remove"
    } else {
        "Removed"
    };
    let lines: Vec<String> = removed
        .iter()
        .map(|name| format!("{verb} {name}"))
        .collect();
    let text = if lines.is_empty() {
        format!("Every snapshot is kept ({keep})")
    } else {
        lines.join("\n")
    };
    let value = json!({ "keep": keep.to_string(), "dry_run": args.dry_run, "removed": removed });
    context.done(&text, &value)?;
    Ok(Exit::Success)
}

pub(super) fn fsck(args: &Fsck, context: &Context) -> Result<Exit, CommandError> {
    let mode = if args.repair {
        Mode::Repair
    } else {
        Mode::Look
    };
    let found = store(context)?.fsck(mode)?;
    let text = if found.is_empty() {
        "The store is as it should be".to_owned()
    } else {
        let lines: Vec<String> = found.iter().map(line).collect();
        lines.join("\n")
    };
    context.done(&text, &json!({ "findings": found }))?;
    let stays = found
        .iter()
        .any(|finding| finding.remedy != Remedy::Repaired);
    Ok(if stays { Exit::Failed } else { Exit::Success })
}

fn line(finding: &Finding) -> String {
    let remedy = match finding.remedy {
        Remedy::Repairable => "with --repair, or by the next command that changes the store",
        Remedy::Repaired => "done",
        Remedy::Decide => "needs a decision",
    };
    format!(
        "{}: {} ({remedy})",
        finding.path.display(),
        finding.explanation
    )
}

/// The user agreed on the command line.
struct Agreed;

/// Asks before something is lost.
fn confirm(what: &str, agreed: Option<Agreed>, context: &Context) -> Result<(), CommandError> {
    if agreed.is_some() {
        return Ok(());
    }
    context.warn(&format!("This will permanently delete {what}!"))?;
    eprint!("Type 'DELETE' to confirm: ");
    let mut answer = String::new();
    let stdin = io::Read::take(io::stdin(), MAX_ANSWER);
    io::BufReader::new(stdin)
        .read_line(&mut answer)
        .map_err(CommandError::on("read the answer"))?;
    if answer.trim() == "DELETE" {
        return Ok(());
    }
    Err(CommandError::Aborted)
}
