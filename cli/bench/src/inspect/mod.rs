//! What a monitor occupies and why its guest leaves KVM, looked at while it runs. Looking takes time,
//! so boots that are looked at are not timed.

mod exits;
mod memory;
mod time;

use serde::Serialize;

pub use self::exits::Exits;
pub use self::memory::{Occupied, Resident, resident};
pub use self::time::Spent;
use crate::boot::Inspect;

/// A figure, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Known<T> {
    /// The figure.
    Value(T),
    /// Why it is not available.
    NotAvailable(String),
}

impl<T> Known<T> {
    /// The figure, when there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::NotAvailable(_) => None,
        }
    }
}

/// What was seen of one monitor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// What it occupied besides guest RAM.
    pub memory: Known<Occupied>,
    /// KVM exits by reason until the last look.
    pub exits: Known<Exits>,
    /// What its processor time was spent on until the last look.
    pub time: Known<Spent>,
}

const NEVER: &str = "the process ended before it was looked at";

/// Looks at one monitor's process again and again.
#[derive(Debug)]
pub struct Inspector {
    memory_mib: u64,
    memory: Known<Occupied>,
    exits: exits::Counter,
    time: Known<Spent>,
}

impl Inspector {
    /// For a machine of `memory_mib` MiB of RAM.
    pub fn new(memory_mib: u64) -> Self {
        Self {
            memory_mib,
            memory: Known::NotAvailable(NEVER.to_owned()),
            exits: exits::Counter::default(),
            time: Known::NotAvailable(NEVER.to_owned()),
        }
    }

    /// What was seen.
    pub fn into_inspection(self) -> Inspection {
        Inspection {
            memory: self.memory,
            exits: self.exits.into_exits(),
            time: self.time,
        }
    }
}

impl Inspect for Inspector {
    fn look(&mut self, pid: u32) {
        match (memory::resident(pid, self.memory_mib), &mut self.memory) {
            (Ok(Some(now)), Known::Value(seen)) => seen.look(now),
            (Ok(Some(now)), memory) => *memory = Known::Value(Occupied::at_first(now)),
            // Guest RAM is not there yet, or not any more.
            (Ok(None), _) | (Err(_), Known::Value(_)) => {}
            (Err(error), memory) => {
                *memory = Known::NotAvailable(format!("/proc/{pid}/smaps: {error}"));
            }
        }
        self.exits.look(pid);
        // The last look counts; after the end there is nothing to see.
        if let Ok(spent) = time::spent(pid) {
            self.time = Known::Value(spent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_says_why() {
        let mut inspector = Inspector::new(64);
        // No process ever has this number.
        inspector.look(u32::MAX);
        let seen = inspector.into_inspection();
        assert!(matches!(seen.memory, Known::NotAvailable(_)), "{seen:?}");
        assert!(matches!(seen.exits, Known::NotAvailable(_)), "{seen:?}");
        assert!(matches!(seen.time, Known::NotAvailable(_)), "{seen:?}");
    }
}
