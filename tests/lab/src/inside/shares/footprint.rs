//! What a backend costs its host while it serves.

use std::fs;

use anyhow::Result;

/// What a backend's processes have, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Footprint {
    /// Memory, in KiB: proportional, without guest RAM, with the journal.
    pub(super) kib: f64,
    /// Open descriptors.
    pub(super) descriptors: f64,
}

impl Footprint {
    /// The larger of each.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            kib: self.kib.max(other.kib),
            descriptors: self.descriptors.max(other.descriptors),
        }
    }

    /// Of `pid`'s children and theirs, with `pid` itself when `whole`; nothing when it has just ended.
    pub(super) fn of_children(pid: u32, whole: bool) -> Result<Self> {
        let mut sum = if whole { of(pid) } else { Self::default() };
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace() {
                let child = Self::of_children(child.parse()?, true)?;
                sum.kib += child.kib;
                sum.descriptors += child.descriptors;
            }
        }
        Ok(sum)
    }
}

/// Of one process; nothing when it has just ended.
fn of(pid: u32) -> Footprint {
    let sizes = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = |name: &str| {
        let size = sizes.lines().find_map(|line| line.strip_prefix(name));
        let number = size.and_then(|size| size.split_whitespace().next());
        number.and_then(|kib| kib.parse().ok()).unwrap_or(0.0)
    };
    // A journal, where there is one: no part of it is mapped.
    let journal = fs::metadata(format!("/proc/{pid}/fd/1"));
    let journal = journal.map_or(0, |file| if file.is_file() { file.len() } else { 0 });
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    Footprint {
        kib: kib("Pss_Anon:") + kib("Pss_File:") + journal as f64 / 1024.0,
        descriptors: descriptors as f64,
    }
}
