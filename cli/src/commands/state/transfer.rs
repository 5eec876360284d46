//! `state export` and `state import`: to and from files and pipes.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Read, Write};
use std::path::Path;

use serde_json::json;
use store::transfer::{Landing, TransferError};
use store::{Store, transfer};

use super::{store, with_progress};
use crate::args::{Export, Import, Target};
use crate::commands::{CommandError, Context};
use crate::exit::Exit;

pub(super) fn export(args: &Export, context: &Context) -> Result<Exit, CommandError> {
    let store = store(context)?;
    let what = what(args)?;
    match &args.file {
        Some(file) => export_to_file(&store, &what, file)?,
        None if io::stdout().is_terminal() => return Err(CommandError::Terminal),
        None => send(&store, &what, io::stdout().lock()).map(drop)?,
    }
    Ok(Exit::Success)
}

fn what(args: &Export) -> Result<transfer::Export, CommandError> {
    match &args.source {
        Target::State(state) if args.since.is_some() || args.from > 0 => {
            let state = state.clone();
            Err(TransferError::NotFixed { state }.into())
        }
        Target::State(state) => Ok(transfer::Export::State(state.clone())),
        Target::Snapshot(snapshot) => Ok(transfer::Export::Snapshot {
            snapshot: snapshot.clone(),
            since: args.since.clone(),
            from: args.from,
        }),
    }
}

fn send<W: Write>(store: &Store, what: &transfer::Export, to: W) -> Result<W, CommandError> {
    let sent = with_progress("Exporting", |progress| {
        store.export(what, BufWriter::new(to), progress)
    })?;
    let sent = sent.into_inner().map_err(io::IntoInnerError::into_error);
    sent.map_err(CommandError::on("write the stream"))
}

/// The file gets its name when it is whole and on disk.
fn export_to_file(store: &Store, what: &transfer::Export, path: &Path) -> Result<(), CommandError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".new-{name}"));
    let file = File::create(&new).map_err(CommandError::on("create the file to export to"))?;
    let written = send(store, what, file).and_then(|file| {
        let synced = file.sync_all().and_then(|()| fs::rename(&new, path));
        synced.map_err(CommandError::on("write the file to export to"))
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&new);
    }
    written
}

pub(super) fn import(args: &Import, context: &Context) -> Result<Exit, CommandError> {
    let store = store(context)?;
    let from: Box<dyn Read> = match &args.file {
        Some(file) => {
            let file = File::open(file);
            Box::new(file.map_err(CommandError::on("open the file to import"))?)
        }
        None => Box::new(io::stdin().lock()),
    };
    let state = &args.state;
    let imported = with_progress("Importing", |progress| {
        store.import(state, BufReader::new(from), progress)
    })?;
    let text = match (imported.landing, &imported.snapshot) {
        (Landing::Snapshot, Some(snapshot)) => format!("Snapshot {state}@{snapshot} imported"),
        (_, Some(snapshot)) => format!("State '{state}' imported, with its snapshot {snapshot}"),
        (_, None) => format!("State '{state}' imported"),
    };
    context.done(&text, &json!({ "state": state, "imported": imported }))?;
    Ok(Exit::Success)
}
