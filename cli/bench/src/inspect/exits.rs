//! Why a guest leaves the processor's guest mode: KVM's counters of a machine in debugfs
//! (virt/kvm/kvm_main.c, `kvm_create_vm_debugfs`), which are the same for every monitor. Only root
//! reads them. KVM answers questions about a machine to its own process only, so nothing else does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Known;

/// One directory per machine, named after the thread that made it.
const KVM: &str = "/sys/kernel/debug/kvm";

/// KVM exits of all vCPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Exits {
    /// All of them.
    pub total: u64,
    /// Those that KVM counts apart, by its names for them, such as `io_exits`.
    pub by_reason: BTreeMap<String, u64>,
}

/// Counts one monitor's exits.
#[derive(Debug, Default)]
pub(super) struct Counter {
    seen: Option<Exits>,
    failed: Option<String>,
}

impl Counter {
    /// Reads what is counted so far.
    pub(super) fn look(&mut self, pid: u32) {
        match look(Path::new(KVM), &threads(pid)) {
            Ok(Some(exits)) => self.seen = Some(exits),
            Ok(None) => {}
            Err(error) => {
                self.failed = Some(format!(
                    "{KVM}: {error} (root reads it, with debugfs mounted)"
                ));
            }
        }
    }

    pub(super) fn into_exits(self) -> Known<Exits> {
        match (self.seen, self.failed) {
            (Some(exits), _) => Known::Value(exits),
            (None, Some(reason)) => Known::NotAvailable(reason),
            (None, None) => {
                Known::NotAvailable(format!("{KVM} shows no machine that is surely this one"))
            }
        }
    }
}

/// The process's threads as the directories name them.
fn threads(pid: u32) -> BTreeSet<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let names = tasks
        .flatten()
        .map(|task| task.file_name().to_string_lossy().into_owned());
    names.collect()
}

/// The exits of the machine that one of `threads` made, or of the only one there is: the thread that made
/// it may have ended.
fn look(kvm: &Path, threads: &BTreeSet<String>) -> io::Result<Option<Exits>> {
    let mut machines: Vec<(bool, PathBuf)> = Vec::new();
    for entry in fs::read_dir(kvm)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some((thread, _)) = name.split_once('-') {
            machines.push((threads.contains(thread), entry.path()));
        }
    }
    let only = machines.len() == 1;
    let machine = machines.into_iter().find(|(is_its, _)| *is_its || only);
    machine.map(|(_, path)| count(&path)).transpose()
}

fn count(machine: &Path) -> io::Result<Exits> {
    let mut exits = Exits::default();
    for entry in fs::read_dir(machine)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "exits" && !name.ends_with("_exits") && name != "hypercalls" {
            continue;
        }
        let Ok(value) = fs::read_to_string(entry.path())?.trim().parse() else {
            continue;
        };
        if name == "exits" {
            exits.total = value;
        } else {
            exits.by_reason.insert(name, value);
        }
    }
    Ok(exits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(kvm: &Path, name: &str, exits: u64) {
        let dir = kvm.join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("exits"), format!("{exits}\n")).unwrap();
        fs::write(dir.join("io_exits"), "7\n").unwrap();
        fs::write(dir.join("pf_taken"), "99\n").unwrap();
    }

    fn total(kvm: &Path, threads: &[&str]) -> Option<u64> {
        let threads = threads.iter().map(ToString::to_string).collect();
        look(kvm, &threads).unwrap().map(|exits| exits.total)
    }

    #[test]
    fn machine_is_told_by_its_thread_or_by_being_the_only_one() {
        let kvm = tempfile::tempdir().unwrap();
        assert_eq!(total(kvm.path(), &["100"]), None);
        machine(kvm.path(), "100-12", 1000);
        assert_eq!(total(kvm.path(), &["5"]), Some(1000));
        machine(kvm.path(), "200-9", 2000);
        assert_eq!(total(kvm.path(), &["5"]), None);
        assert_eq!(total(kvm.path(), &["5", "200"]), Some(2000));
    }

    #[test]
    fn only_exits_are_taken() {
        let kvm = tempfile::tempdir().unwrap();
        machine(kvm.path(), "100-12", 1000);
        let exits = look(kvm.path(), &BTreeSet::new()).unwrap().unwrap();
        assert_eq!(
            exits.by_reason,
            BTreeMap::from([("io_exits".to_owned(), 7)])
        );
    }

    #[test]
    fn host_without_debugfs_is_an_error() {
        assert!(look(Path::new("/nonexistent"), &BTreeSet::new()).is_err());
    }
}
