//! The program when it is called `vm-state`: the syntax and the messages that users of that have.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::args::Cli;
use crate::commands::{Colours, Context, Voice, dispatch, tagged};
use crate::exit::Exit;
use crate::logging;

/// Verb, arguments, what it does.
const COMMANDS: [(&str, &str, &str); 8] = [
    ("list", "", "List all states and slot assignments"),
    ("create", "<name>", "Create a new empty state"),
    ("snapshot", "<slot> <name>", "Snapshot current slot's state"),
    ("assign", "<slot> <state>", "Assign a state to a slot"),
    ("clone", "<source> <dest>", "Clone a state to a new name"),
    ("delete", "<name>", "Delete a state (must not be in use)"),
    (
        "migrate",
        "<state> <slot>",
        "Stop slot, assign state, start slot",
    ),
    (
        "restore",
        "<snapshot> <state>",
        "Restore a snapshot to a new state",
    ),
];

/// Whether the program was called by this name.
pub(crate) fn is_called(arguments: &[OsString]) -> bool {
    let program = arguments
        .first()
        .and_then(|name| Path::new(name).file_name());
    program.is_some_and(|name| name == "vm-state")
}

/// Does what was asked. Every failure has exit code 1.
pub(crate) fn main(arguments: &[OsString], started: Instant) -> ExitCode {
    let verb = arguments
        .get(1)
        .map(|verb| verb.to_string_lossy().into_owned());
    let verb = verb.as_deref().unwrap_or("list");
    if ["help", "--help", "-h"].contains(&verb) {
        // Nobody to tell when standard output fails.
        let _ = crate::output::print_text(&help());
        return Exit::Success.into();
    }
    let Some(command) = COMMANDS.iter().find(|(name, ..)| *name == verb) else {
        return fail(&format!(
            "Unknown command: {verb}. Use 'vm-state help' for usage."
        ));
    };
    let own = ["slotvmm", "state", verb].map(OsString::from);
    let rest = arguments.iter().skip(2).cloned();
    let cli = match Cli::try_parse_from(own.into_iter().chain(rest)) {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            let (name, arguments, _) = command;
            return fail(&format!("Usage: vm-state {name} {arguments}"));
        }
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            return fail(first.trim_start_matches("error: "));
        }
    };
    logging::start(cli.global.verbose);
    let mut context = Context::new(&cli.global, started);
    context.voice = Voice::VmState;
    match dispatch(&cli.command, &context) {
        Ok(exit) => exit.into(),
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            fail(&text)
        }
    }
}

fn fail(text: &str) -> ExitCode {
    let colours = io::stderr().is_terminal().then_some(Colours);
    eprintln!("{}", tagged("ERROR", text, colours));
    Exit::Failed.into()
}

fn help() -> String {
    let row = |(name, arguments, does): &(&str, &str, &str)| {
        let call = format!("{name} {arguments}");
        format!("  {call:<28}{does}\n")
    };
    let rows: String = COMMANDS.iter().map(row).collect();
    format!(
        "vm-state - Manage portable VM states\n\nUSAGE:\n  vm-state <command> [arguments]\n\n\
         COMMANDS:\n{rows}  {:<28}Show this help\n\n`slotvmm state --help` shows more verbs and \
         options; all of them work here as well where the verb is the same.",
        "help"
    )
}
