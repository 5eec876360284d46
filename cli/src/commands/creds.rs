//! `creds list` and `creds check`: everything about a slot's credentials but their values.

use serde::Serialize;

use super::{CommandError, Context};
use crate::args::CredsCommand;
use crate::credentials::{CredentialError, Places, ValueError, size};
use crate::exit::Exit;
use crate::output::{self, Report, print, table};
use crate::resolve::{Credential, Slot};

/// Dispatches `creds`.
pub(super) fn creds(command: &CredsCommand, context: &Context) -> Result<Exit, CommandError> {
    match command {
        CredsCommand::List { slot } => list(slot, context),
        CredsCommand::Check { slot } => check(slot, context),
    }
}

fn list(slot: &str, context: &Context) -> Result<Exit, CommandError> {
    let (_, slot) = context.slot(slot)?;
    print(&Listed::of(&slot), context.format).map_err(CommandError::on("print the list"))?;
    Ok(Exit::Success)
}

/// Prints what is wrong; the exit code is that of the first.
fn check(slot: &str, context: &Context) -> Result<Exit, CommandError> {
    let (_, slot) = context.slot(slot)?;
    let checked = Checked::of(&slot);
    print(&checked, context.format).map_err(CommandError::on("print the result"))?;
    Ok(checked.exit)
}

/// The size of a credential's value, in the unit that runs the slot when there is one.
pub(super) fn inspect(slot: &Slot, credential: &Credential) -> Result<u64, ValueError> {
    let path = Places::of_unit(&slot.name).path(&credential.place)?;
    size(&path)
}

/// A table of credentials without their values, with what is there now.
#[derive(Serialize)]
pub(super) struct Listed(Vec<Row>);

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    credential: Credential,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Listed {
    pub(super) fn of(slot: &Slot) -> Self {
        let row = |credential: &Credential| {
            let (bytes, problem) = match inspect(slot, credential) {
                Ok(bytes) => (Some(bytes), None),
                Err(error) => (None, Some(summary(&error))),
            };
            Row {
                credential: credential.clone(),
                bytes,
                problem,
            }
        };
        Self(slot.credentials.list.iter().map(row).collect())
    }
}

/// What fits into a table.
fn summary(error: &ValueError) -> String {
    match error {
        ValueError::NoDirectory => "known to the unit that runs the slot".to_owned(),
        ValueError::Missing { .. } => "missing".to_owned(),
        ValueError::Kind { .. } => "not a regular file".to_owned(),
        ValueError::TooLarge { bytes, .. } => format!("{bytes} bytes, too large"),
        ValueError::Changed { .. } => "being written".to_owned(),
        ValueError::Read { source, .. } => source.to_string(),
    }
}

impl Report for Listed {
    fn text(&self) -> String {
        let rows = self.0.iter().map(|row| {
            let credential = &row.credential;
            let uses = if credential.once { "once" } else { "any" };
            let value = match (row.bytes, &row.problem) {
                (Some(bytes), _) => output::size(bytes),
                (None, problem) => output::or_dash(problem.as_ref()),
            };
            [
                credential.name.to_string(),
                credential.transport_word().to_owned(),
                uses.to_owned(),
                credential.place.to_string(),
                value,
            ]
        });
        table(["CREDENTIAL", "TRANSPORT", "USES", "SOURCE", "VALUE"], rows)
    }
}

#[derive(Serialize)]
struct Checked {
    slot: String,
    checked: usize,
    /// Those that only the unit that runs the slot can see.
    unchecked: Vec<String>,
    problems: Vec<String>,
    #[serde(skip)]
    exit: Exit,
}

impl Checked {
    fn of(slot: &Slot) -> Self {
        let mut checked = Self {
            slot: slot.name.to_string(),
            checked: 0,
            unchecked: Vec::new(),
            problems: Vec::new(),
            exit: Exit::Success,
        };
        for credential in &slot.credentials.list {
            match inspect(slot, credential) {
                Ok(_) => checked.checked = checked.checked.saturating_add(1),
                Err(ValueError::NoDirectory) => {
                    checked.unchecked.push(credential.name.to_string());
                }
                Err(source) => checked.note(credential, source),
            }
        }
        checked
    }

    fn note(&mut self, credential: &Credential, source: ValueError) {
        let cause = match std::error::Error::source(&source) {
            Some(cause) => format!("{source}: {cause}"),
            None => source.to_string(),
        };
        self.problems.push(format!("{}: {cause}", credential.name));
        if self.problems.len() == 1 {
            let name = credential.name.clone();
            self.exit = CommandError::from(CredentialError { name, source }).exit();
        }
    }
}

impl Report for Checked {
    fn text(&self) -> String {
        let mut lines = self.problems.clone();
        lines.extend(self.unchecked.iter().map(|name| {
            format!(
                "{name}: not checked, only the unit that runs {} has it",
                self.slot
            )
        }));
        lines.push(match (self.problems.len(), self.checked) {
            (0, 0) if self.unchecked.is_empty() => format!("{} has no credentials", self.slot),
            (0, count) => format!("No problems with {count} of {}", self.slot),
            (1, _) => "1 problem".to_owned(),
            (count, _) => format!("{count} problems"),
        });
        lines.join("\n")
    }
}
