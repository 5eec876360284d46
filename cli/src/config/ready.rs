//! `[ready]`: what a slot's file may say of when its guest is ready.

use std::num::NonZeroU16;

use devices::notify::Target;

use super::node::{Node, Value};
use super::reader::{FromNode, Ranged, Table, expected, nearest};
use super::slot::Setting;

/// Longest time a guest may be given, in seconds: a day.
pub(crate) const MAX_TIMEOUT: i64 = 86_400;

/// `[ready]`
#[derive(Debug, Default)]
pub(crate) struct ReadyFile {
    /// `when`: what counts as ready.
    pub(crate) when: Setting<When>,
    /// `target`: what the guest's systemd has to reach.
    pub(crate) target: Setting<Goal>,
    /// `timeout` in seconds.
    pub(crate) timeout: Setting<Ranged<1, MAX_TIMEOUT>>,
}

impl ReadyFile {
    /// Reads the table.
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            when: table.get("when"),
            target: table.get("target"),
            timeout: table.get("timeout"),
        };
        table.finish();
        file
    }
}

/// What counts as ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum When {
    /// The guest's systemd says so.
    Notify,
    /// A port of the guest takes connections.
    Tcp(NonZeroU16),
    /// The console shows a text.
    Console(String),
    /// It runs.
    None,
}

/// Longest text to wait for on the console, in bytes.
const MAX_CONSOLE_TEXT: usize = 200;

const WHEN: &str = "\"notify\", \"tcp:<port>\", \"console:<text>\" or \"none\"";

impl FromNode for When {
    fn from_node(node: &Node) -> Result<Self, String> {
        let Value::Text(text) = &node.value else {
            return Err(expected(WHEN, &node.value));
        };
        match text.split_once(':') {
            None if text == "notify" => Ok(Self::Notify),
            None if text == "none" => Ok(Self::None),
            Some(("tcp", port)) => {
                let port = port.parse().map(Self::Tcp);
                port.map_err(|_| expected("a port from 1 to 65535 after `tcp:`", &node.value))
            }
            Some(("console", text)) => {
                let fits = (1..=MAX_CONSOLE_TEXT).contains(&text.len());
                if fits && !text.contains(char::is_control) {
                    return Ok(Self::Console(text.to_owned()));
                }
                let wanted = "a text of 1 to 200 bytes in one line after `console:`";
                Err(expected(wanted, &node.value))
            }
            _ => {
                let word = text.split_once(':').map_or(text.as_str(), |(word, _)| word);
                let near = nearest(word, ["notify", "tcp", "console", "none"].into_iter());
                let hint =
                    near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
                Err(format!("{}{hint}", expected(WHEN, &node.value)))
            }
        }
    }
}

/// What the guest's systemd has to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Goal {
    /// A target.
    Target(Target),
    /// Whatever it is.
    Any,
}

impl FromNode for Goal {
    fn from_node(node: &Node) -> Result<Self, String> {
        let wanted = "the name of a target such as \"multi-user.target\", or \"any\"";
        let Value::Text(text) = &node.value else {
            return Err(expected(wanted, &node.value));
        };
        if text == "any" {
            return Ok(Self::Any);
        }
        if let Ok(target) = text.parse() {
            return Ok(Self::Target(target));
        }
        let full = format!("{text}.target");
        let hint = match full.parse::<Target>() {
            Ok(target) if !text.contains('.') => format!("; did you mean \"{target}\"?"),
            _ => String::new(),
        };
        Err(format!("{}{hint}", expected(wanted, &node.value)))
    }
}
