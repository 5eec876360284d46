//! What the verbs say while they work: as `slotvmm` does, or as `vm-state` always has.

use std::io::{self, IsTerminal as _};

use serde_json::Value;

use super::{CommandError, Context};
use crate::commands::Voice;
use crate::output::{Format, print_json, print_text};

impl Context {
    /// Says what is about to happen or what may be done next; only `vm-state` does.
    pub(super) fn info(&self, text: &str) -> Result<(), CommandError> {
        match (self.format, self.voice) {
            (Format::Text, Voice::VmState) => print_line("INFO", text),
            _ => Ok(()),
        }
    }

    /// Says something that the user may not expect.
    pub(super) fn warn(&self, text: &str) -> Result<(), CommandError> {
        match (self.format, self.voice) {
            (Format::Text, Voice::VmState) => print_line("WARN", text),
            _ => {
                eprintln!("warning: {text}");
                Ok(())
            }
        }
    }

    /// Says what was done: a sentence for people, a value for programs.
    pub(super) fn done(&self, text: &str, value: &Value) -> Result<(), CommandError> {
        match (self.format, self.voice) {
            (Format::Json, _) => print_json(value).map_err(CommandError::on("print the result")),
            (Format::Text, Voice::VmState) => print_line("OK", text),
            (Format::Text, Voice::Slotvmm) => {
                print_text(text).map_err(CommandError::on("print the result"))
            }
        }
    }
}

fn print_line(tag: &str, text: &str) -> Result<(), CommandError> {
    let line = tagged(tag, text, io::stdout().is_terminal().then_some(Colours));
    print_text(&line).map_err(CommandError::on("print the result"))
}

/// Tags have the colours that they always had.
pub(crate) struct Colours;

/// A line of `vm-state`.
pub(crate) fn tagged(tag: &str, text: &str, colours: Option<Colours>) -> String {
    let number = match tag {
        "INFO" => 34,
        "OK" => 32,
        "WARN" => 33,
        _ => 31,
    };
    match colours {
        Some(Colours) => format!("\x1b[0;{number}m[{tag}]\x1b[0m {text}"),
        None => format!("[{tag}] {text}"),
    }
}
