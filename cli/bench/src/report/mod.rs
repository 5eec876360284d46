//! Results as figures with their comparison, and as a page with pictures.

mod figures;
mod host;
mod html;
pub mod svg;
mod xml;

use serde::Serialize;

pub use self::figures::{Figure, Measure};
pub use self::host::Host;
pub use self::html::page;
use crate::series::Results;

/// Everything there is to say about a series of boots.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What was booted.
    pub slot: String,
    /// The machine in words: name and value.
    pub machine: Vec<(String, String)>,
    /// Where it was booted.
    pub host: Host,
    /// What differs from the slot as it usually runs, and how figures are meant.
    pub notes: Vec<String>,
    /// Medians and ratios.
    pub figures: Vec<Figure>,
    /// Every boot.
    pub results: Results,
}

impl Report {
    /// Works out the figures of `results`.
    pub fn of(
        slot: String,
        machine: Vec<(String, String)>,
        mut notes: Vec<String>,
        results: Results,
    ) -> Self {
        notes.extend(general_notes(&results));
        Self {
            slot,
            machine,
            host: Host::look(),
            notes,
            figures: figures::of(&results),
            results,
        }
    }
}

/// What readers of any report have to know.
fn general_notes(results: &Results) -> Vec<String> {
    let first = results.entries.first().map_or("-", |entry| &entry.name);
    let mut notes = vec![
        "Times count from just before the process is made. CPU time is that of the whole process \
         until its end, the guest's included (wait4)."
            .to_owned(),
        format!(
            "A ratio is the median of {first} divided by that of the other, with its 95 % confidence \
             interval; p is that of a two-sided Mann-Whitney test."
        ),
        "Memory is what is resident besides guest RAM (/proc/PID/smaps without the largest writable \
         mappings), at most and at the last look; exits are KVM's counters of all vCPUs at the last \
         look. Both come from a boot of their own that is not timed."
            .to_owned(),
    ];
    if results.boots < 100 {
        notes.push("p99 of fewer than 100 boots is the largest value.".to_owned());
    }
    notes
}
