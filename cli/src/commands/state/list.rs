//! `state list`: slots with their states, states with their images, snapshots.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;
use store::{SlotInfo, StateInfo, Store};

use super::store;
use crate::commands::{CommandError, Context, Voice};
use crate::exit::Exit;
use crate::output::{Report, or_dash, print, table};

/// Most snapshots that `vm-state` lists.
const MAX_SNAPSHOTS: usize = 20;

/// Prints what is in the store.
pub(super) fn list(context: &Context) -> Result<Exit, CommandError> {
    let store = store(context)?;
    let list = List::of(&store, context)?;
    match context.voice {
        Voice::Slotvmm => {
            print(&list, context.format).map_err(CommandError::on("print the list"))?;
        }
        Voice::VmState => list.say(context, &store)?,
    }
    Ok(Exit::Success)
}

#[derive(Serialize)]
struct List {
    path: PathBuf,
    slots: Vec<SlotInfo>,
    states: Vec<StateInfo>,
}

impl List {
    fn of(store: &Store, context: &Context) -> Result<Self, CommandError> {
        let mut slots = store.slots()?;
        for name in context.config.slot_names()? {
            if let Ok(slot) = name.as_str().parse()
                && !slots.iter().any(|it| it.slot == slot)
            {
                slots.push(SlotInfo {
                    state: store.state_of(&slot)?,
                    used_by: None,
                    slot,
                });
            }
        }
        slots.sort_by(|a, b| a.slot.cmp(&b.slot));
        Ok(Self {
            path: store.layout().states(),
            slots,
            states: store.states()?,
        })
    }

    fn snapshots(&self) -> Vec<[String; 4]> {
        let of_state = |state: &StateInfo| {
            let rows = state.snapshots.iter().map(|snapshot| {
                let consistency = snapshot.manifest.as_ref().map(|it| it.facts.consistency);
                [
                    format!("{}@{}", state.state, snapshot.snapshot),
                    consistency.map_or("unknown".to_owned(), word),
                    amount(snapshot.allocated_bytes),
                    utc(snapshot.created),
                ]
            });
            rows.collect::<Vec<_>>()
        };
        self.states.iter().flat_map(of_state).collect()
    }

    /// The layout that `vm-state` always had.
    fn say(&self, context: &Context, store: &Store) -> Result<(), CommandError> {
        context.info("States and assignments:")?;
        let mut text = format!(
            "\n{:<15} {:<15} {:<10} {}\n{:<15} {:<15} {:<10} {}\n",
            "SLOT", "STATE", "RUNNING", "PATH", "----", "-----", "-------", "----"
        );
        for slot in &self.slots {
            let state = or_dash(slot.state.as_ref());
            let running = if slot.used_by.is_some() { "yes" } else { "no" };
            let path = slot.state.as_ref().map(|state| store.layout().state(state));
            let path = or_dash(path.as_ref().map(|path| path.display()));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{:<15} {state:<15} {running:<10} {path}",
                slot.slot.as_str()
            );
        }
        say_text(&text)?;
        say_text("")?;
        context.info("Available states:")?;
        let space = rustix::fs::statvfs(&self.path);
        let free = space.map_or(0, |it| it.f_bavail.saturating_mul(it.f_frsize));
        let states = self.states.iter().map(|state| {
            let used = amount(state.allocated_bytes);
            format!(
                "  {:<20} used: {used:<8} avail: {}",
                state.state.as_str(),
                amount(free)
            )
        });
        say_text(&or("  (no states created yet)", states.collect()))?;
        say_text("")?;
        context.info("Snapshots:")?;
        let snapshots = self.snapshots().into_iter().take(MAX_SNAPSHOTS);
        say_text(&or(
            "  (no snapshots)",
            snapshots.map(|[name, ..]| name).collect(),
        ))
    }
}

fn or(none: &str, lines: Vec<String>) -> String {
    if lines.is_empty() {
        return none.to_owned();
    }
    lines.join("\n")
}

fn say_text(text: &str) -> Result<(), CommandError> {
    crate::output::print_text(text).map_err(CommandError::on("print the list"))
}

impl Report for List {
    fn text(&self) -> String {
        let slots = self.slots.iter().map(|slot| {
            [
                slot.slot.to_string(),
                or_dash(slot.state.as_ref()),
                slot.used_by.clone().unwrap_or_else(|| "no".to_owned()),
            ]
        });
        let states = self.states.iter().map(|state| {
            [
                state.state.to_string(),
                or_dash(state.slot.as_ref()),
                or_dash(state.bytes.map(amount)),
                amount(state.allocated_bytes),
                state.snapshots.len().to_string(),
                utc(state.created),
            ]
        });
        let heading = ["STATE", "SLOT", "SIZE", "ALLOCATED", "SNAPSHOTS", "CREATED"];
        let mut text = format!(
            "{}\n\n{}",
            table(["SLOT", "STATE", "RUNNING"], slots),
            table(heading, states)
        );
        let snapshots = self.snapshots();
        if !snapshots.is_empty() {
            let heading = ["SNAPSHOT", "TAKEN", "ALLOCATED", "CREATED"];
            text.push_str("\n\n");
            text.push_str(&table(heading, snapshots));
        }
        text
    }
}

fn word(consistency: store::snapshot::Consistency) -> String {
    use store::snapshot::Consistency;
    match consistency {
        Consistency::Stopped => "stopped",
        Consistency::Crash => "running",
        Consistency::Filesystem => "frozen",
    }
    .to_owned()
}

/// Bytes in the largest unit that leaves a number before the point, rounded down to tenths.
fn amount(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let unit = units.iter().find(|(shift, _)| bytes >> shift > 0);
    match unit {
        Some((shift, unit)) => {
            let tenths = (bytes >> (shift - 10)).saturating_mul(10) >> 10;
            format!("{}.{}{unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes}B"),
    }
}

/// A time in UTC to the minute. The calendar repeats every 400 years, which have 146097 days.
pub(super) fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Counted from 0000-03-01, so that the day that leap years add is a year's last.
    let day = days.saturating_add(719_468);
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}-{month:02}-{date:02} {:02}:{:02}",
        year + era * 400 + carry,
        rest / 3600,
        rest % 3600 / 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00");
        assert_eq!(utc(1_709_251_199), "2024-02-29 23:59");
        assert_eq!(utc(1_795_262_340), "2026-11-21 11:59");
        assert_eq!(utc(4_107_542_400), "2100-03-01 00:00");
    }

    #[test]
    fn amounts_are_short() {
        assert_eq!(amount(0), "0B");
        assert_eq!(amount(1023), "1023B");
        assert_eq!(amount(1536), "1.5K");
        assert_eq!(amount(64 << 30), "64.0G");
        assert_eq!(amount(u64::MAX), "16777215.9T");
    }
}
