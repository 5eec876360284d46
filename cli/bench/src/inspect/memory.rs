//! Resident memory besides guest RAM, from `/proc/PID/smaps` (proc(5)).
//!
//! Which mappings are guest RAM no monitor says. Taken as such are the largest writable ones, until
//! they hold as much as the guest has.

use std::cmp::Reverse;
use std::fs;
use std::io;

use serde::Serialize;

/// Resident memory besides guest RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Resident {
    /// Its own pages, in KiB.
    pub private_kib: u64,
    /// Pages that other processes may share, such as program text, in KiB.
    pub shared_kib: u64,
}

impl Resident {
    /// All of it, in KiB.
    pub fn total_kib(self) -> u64 {
        self.private_kib.saturating_add(self.shared_kib)
    }

    fn max(self, other: Self) -> Self {
        if other.total_kib() > self.total_kib() {
            other
        } else {
            self
        }
    }
}

/// What was resident at several looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Occupied {
    /// At the look with the most.
    pub most: Resident,
    /// At the last look, when starting is over.
    pub last: Resident,
}

impl Occupied {
    pub(super) fn at_first(now: Resident) -> Self {
        Self {
            most: now,
            last: now,
        }
    }

    pub(super) fn look(&mut self, now: Resident) {
        self.most = self.most.max(now);
        self.last = now;
    }
}

/// What is resident of a process besides `memory_mib` MiB of guest RAM; nothing while it has not
/// mapped that much.
///
/// # Errors
/// When the process has ended or may not be looked at.
pub fn resident(pid: u32, memory_mib: u64) -> io::Result<Option<Resident>> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    Ok(without_guest(mappings(&smaps), memory_mib))
}

#[derive(Debug, Default)]
struct Mapping {
    writable: bool,
    size: u64,
    private: u64,
    shared: u64,
}

fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(key), Some(value)) = (words.next(), words.next()) else {
            continue;
        };
        if !key.ends_with(':') {
            // The first line of a mapping: addresses and permissions.
            mappings.push(Mapping {
                writable: value.starts_with("rw"),
                ..Mapping::default()
            });
            continue;
        }
        let (Some(mapping), Ok(kib)) = (mappings.last_mut(), value.parse::<u64>()) else {
            continue;
        };
        match key {
            "Size:" => mapping.size = kib,
            "Private_Clean:" | "Private_Dirty:" => {
                mapping.private = mapping.private.saturating_add(kib);
            }
            "Shared_Clean:" | "Shared_Dirty:" => {
                mapping.shared = mapping.shared.saturating_add(kib);
            }
            _ => {}
        }
    }
    mappings
}

fn without_guest(mut mappings: Vec<Mapping>, memory_mib: u64) -> Option<Resident> {
    mappings.sort_by_key(|mapping| Reverse((mapping.writable, mapping.size)));
    let mut guest = memory_mib.saturating_mul(1024);
    let rest: Vec<&Mapping> = mappings
        .iter()
        .filter(|mapping| {
            let is_guest = guest > 0 && mapping.writable;
            if is_guest {
                guest = guest.saturating_sub(mapping.size);
            }
            !is_guest
        })
        .collect();
    let sum = |of: fn(&Mapping) -> u64| {
        let values = rest.iter().map(|mapping| of(mapping));
        values.fold(0, u64::saturating_add)
    };
    (guest == 0).then(|| Resident {
        private_kib: sum(|mapping| mapping.private),
        shared_kib: sum(|mapping| mapping.shared),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00400000-00500000 r-xp 00000000 fe:00 42 /usr/bin/monitor
Size:               1024 kB
Shared_Clean:        300 kB
Private_Clean:        20 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0004000000 rw-p 00000000 00:00 0
Size:              65536 kB
Private_Dirty:     50000 kB
VmFlags: rd wr mr mw me
7f0010000000-7f0010100000 rw-p 00000000 00:00 0 [heap]
Size:               1024 kB
Private_Dirty:        80 kB
";

    #[test]
    fn most_and_last_are_told_apart() {
        let resident = |private_kib| Resident {
            private_kib,
            shared_kib: 10,
        };
        let mut occupied = Occupied::at_first(resident(1));
        occupied.look(resident(5));
        occupied.look(resident(2));
        assert_eq!((occupied.most, occupied.last), (resident(5), resident(2)));
    }

    #[test]
    fn guest_ram_does_not_count() {
        let resident = without_guest(mappings(SMAPS), 64).unwrap();
        assert_eq!((resident.private_kib, resident.shared_kib), (100, 300));
    }

    #[test]
    fn process_without_guest_ram_yet_has_no_figure() {
        assert_eq!(without_guest(mappings(SMAPS), 256), None);
        assert_eq!(without_guest(mappings(""), 1), None);
    }

    #[test]
    fn guest_ram_in_two_pieces_is_both() {
        let two = format!("{SMAPS}{}", SMAPS.replace("65536", "32768"));
        let resident = without_guest(mappings(&two), 96).unwrap();
        assert_eq!(resident.private_kib, 200);
    }

    #[test]
    fn own_process_can_be_looked_at() {
        resident(std::process::id(), 1).unwrap();
    }
}
