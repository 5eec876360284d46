//! The guest's side of its boot: times of systemd units, and of initcalls when the kernel logs them.

use hostnet::slot::SlotName;
use serde::Serialize;

use super::super::{Context, ssh};

/// What the guest's root runs: properties of units (org.freedesktop.systemd1), then the kernel's lines
/// about initcalls, if any.
const ASK: &str = "systemctl show '*.service' '*.device' '*.mount' \
     -p Id,InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic; \
     dmesg | grep -F ' initcall ' || true";

/// Most units or initcalls that are taken from a guest; what a guest says is not trusted.
const MOST: usize = 20_000;

/// Longest name that is taken, in characters.
const LONGEST: usize = 80;

/// Something that took a while, in milliseconds of its clock.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Timed {
    /// What.
    pub(super) name: String,
    /// From when on.
    pub(super) start_ms: f64,
    /// Until when.
    pub(super) end_ms: f64,
}

impl Timed {
    /// How long it took.
    pub(super) fn took_ms(&self) -> f64 {
        self.end_ms - self.start_ms
    }

    /// The same on a clock that starts `offset` milliseconds earlier.
    pub(super) fn after(&self, offset: f64) -> Self {
        Self {
            name: self.name.clone(),
            start_ms: self.start_ms + offset,
            end_ms: self.end_ms + offset,
        }
    }
}

/// What a guest said of its boot, on its own clock.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Guest {
    /// systemd units that were started.
    pub(super) units: Vec<Timed>,
    /// Initcalls of the kernel.
    pub(super) initcalls: Vec<Timed>,
    /// Why it said nothing.
    #[serde(rename = "guest_not_asked", skip_serializing_if = "Option::is_none")]
    pub(super) silent: Option<String>,
}

impl Guest {
    /// A guest that said nothing.
    pub(super) fn silent(why: &str) -> Self {
        Self {
            silent: Some(why.to_owned()),
            ..Self::default()
        }
    }

    /// The longest of everything, longest first.
    pub(super) fn longest(&self, most: usize) -> Vec<&Timed> {
        let mut all: Vec<&Timed> = self.units.iter().chain(&self.initcalls).collect();
        all.sort_by(|one, other| other.took_ms().total_cmp(&one.took_ms()));
        all.truncate(most);
        all
    }

    fn parse(answer: &str) -> Self {
        let (mut units, mut initcalls) = (Vec::new(), Vec::new());
        let mut unit = Unit::default();
        // An empty line ends a unit; the one added ends the last.
        for line in answer.lines().chain([""]).take(MOST) {
            if let Some(initcall) = initcall(line) {
                initcalls.push(initcall);
            } else if line.is_empty() {
                units.extend(std::mem::take(&mut unit).timed());
            } else if let Some((key, value)) = line.split_once('=') {
                unit.set(key, value);
            }
        }
        units.extend(unit.timed());
        Self {
            units,
            initcalls,
            silent: None,
        }
    }
}

/// Asks the guest of a running slot.
pub(super) fn ask(slot: &SlotName, context: &Context) -> Guest {
    match ssh::ask_guest(slot, context, ASK) {
        Ok(answer) => Guest::parse(&answer),
        Err(error) => Guest::silent(&error.to_string()),
    }
}

#[derive(Debug, Default)]
struct Unit {
    name: String,
    began_us: u64,
    done_us: u64,
}

impl Unit {
    fn set(&mut self, key: &str, value: &str) {
        match key {
            "Id" => self.name = name(value),
            "InactiveExitTimestampMonotonic" => self.began_us = value.parse().unwrap_or(0),
            "ActiveEnterTimestampMonotonic" => self.done_us = value.parse().unwrap_or(0),
            _ => {}
        }
    }

    /// Nothing for a unit that was never started.
    fn timed(self) -> Option<Timed> {
        let was_started = self.began_us > 0 && self.done_us > self.began_us;
        (was_started && !self.name.is_empty()).then(|| Timed {
            name: self.name,
            start_ms: self.began_us as f64 / 1e3,
            end_ms: self.done_us as f64 / 1e3,
        })
    }
}

/// `[    1.234567] initcall pci_init+0x0/0x10 returned 0 after 1234 usecs`
fn initcall(line: &str) -> Option<Timed> {
    let (time, rest) = line.trim_start().strip_prefix('[')?.split_once(']')?;
    let rest = rest.trim_start().strip_prefix("initcall ")?;
    let (call, rest) = rest.split_once(" returned ")?;
    let (_, took) = rest.split_once(" after ")?;
    let took_us: u32 = took.split_once(" usecs")?.0.parse().ok()?;
    let end_ms = time
        .trim()
        .parse::<f64>()
        .ok()
        .filter(|time| time.is_finite())?
        * 1e3;
    Some(Timed {
        name: name(call.split_once('+').map_or(call, |(call, _)| call)),
        start_ms: end_ms - f64::from(took_us) / 1e3,
        end_ms,
    })
}

/// A name that can be printed.
fn name(text: &str) -> String {
    let printable = text.chars().filter(|c| !c.is_control());
    printable.take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "\
Id=ssh.service
InactiveExitTimestampMonotonic=2000000
ActiveEnterTimestampMonotonic=2250000

Id=never.service
InactiveExitTimestampMonotonic=0
ActiveEnterTimestampMonotonic=0

InactiveExitTimestampMonotonic=1000000
ActiveEnterTimestampMonotonic=1900000
Id=slow.mount
[    0.500000] initcall pci_subsys_init+0x0/0x60 returned 0 after 12500 usecs
[    0.600000] calling  x+0x0/0x10 @ 1
";

    #[test]
    fn units_and_initcalls_are_told_from_each_other() {
        let guest = Guest::parse(ANSWER);
        let names = |list: &[Timed]| -> Vec<String> {
            list.iter().map(|timed| timed.name.clone()).collect()
        };
        assert_eq!(names(&guest.units), ["ssh.service", "slow.mount"]);
        assert_eq!(names(&guest.initcalls), ["pci_subsys_init"]);
        assert_eq!(guest.initcalls[0].start_ms, 487.5);
        let longest = guest.longest(1);
        assert_eq!(
            (longest[0].name.as_str(), longest[0].took_ms()),
            ("slow.mount", 900.0)
        );
    }

    #[test]
    fn hostile_answer_is_bounded_and_harmless() {
        let huge = "Id=\x1b]0;x\nInactiveExitTimestampMonotonic=1\nActiveEnterTimestampMonotonic=99999999999999999999\n\n";
        assert!(Guest::parse(&huge.repeat(10)).units.is_empty());
        let many = "[ 1.0] initcall a+0/0 returned 0 after 1 usecs\n".repeat(MOST * 2);
        assert!(Guest::parse(&many).initcalls.len() <= MOST);
        let odd = "[ inf] initcall a returned 0 after 4294967296 usecs\n[ NaN] initcall b returned 0 after 1 usecs";
        assert!(Guest::parse(odd).initcalls.is_empty());
        assert_eq!(name(&"\x07a".repeat(200)).len(), LONGEST);
    }
}
