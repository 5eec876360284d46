//! States that are ZFS data sets: `<base>/<state>`, mounted at `states/<state>`.
//!
//! ```text
//! create, clone ─▶ mounted at .new-<state> ─▶ mounted at <state> ─▶ .old-<state> ─▶ destroyed
//! ```
//!
//! The property `mountpoint` says what a data set is, and setting it is one step for ZFS: what was
//! being made or removed by a command that was killed is found by it. A snapshot is
//! `<base>/<state>@<snapshot>`, with its manifest in the property `slotvmm:manifest`, which comes to
//! be with it. Snapshots whose names begin with a dot are nobody's: what depends on them keeps them
//! (`zfs destroy -d`).
//!
//! Data sets that other tools made with this layout are used as they are, their snapshots as well.

mod probe;
mod program;
pub(crate) mod recover;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::StoreError;
use crate::fault;
use crate::layout::{NEW, OLD};
use crate::name::Name;
use crate::snapshot::Manifest;

pub(crate) use self::program::Runner;
#[cfg(test)]
pub(crate) use self::program::{Answer, Program};

/// The property of a snapshot that has its manifest.
const MANIFEST: &str = "slotvmm:manifest";
/// The property of a snapshot that is taken to reset a state: which image is to go.
const RESET: &str = "slotvmm:reset";
/// What stands for a property that is not set.
const NONE: &str = "-";

/// The data sets of a store's states.
#[derive(Debug, Clone)]
pub struct DataSets {
    runner: Arc<dyn Runner>,
    base: String,
    states: PathBuf,
}

/// A state that is a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataSet {
    /// The last part of its name.
    pub(crate) name: Name,
    /// Where it belongs.
    pub(crate) mountpoint: PathBuf,
    /// Whether it is there.
    pub(crate) mounted: bool,
}

/// A snapshot of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetSnapshot {
    /// The last part of the data set's name.
    pub(crate) state: Name,
    /// What follows the `@`.
    pub(crate) name: String,
    /// Never the same for two snapshots of a pool.
    pub(crate) guid: String,
    /// When it was taken: seconds since 1970-01-01 UTC.
    pub(crate) created: u64,
    /// Bytes that can be reached through it.
    pub(crate) referenced: u64,
    /// Whether it goes with the last clone.
    pub(crate) deferred: bool,
    /// Data sets made from it.
    pub(crate) clones: Vec<String>,
    /// The image that is to go, if it was taken for a reset that is not complete.
    pub(crate) reset: Option<String>,
    /// What whoever took it wrote down; nothing if that was another tool.
    pub(crate) manifest: Option<Manifest>,
}

impl SetSnapshot {
    /// Its name, if it is one that we give and show.
    pub(crate) fn visible(&self) -> Option<Name> {
        let name = self.name.parse().ok()?;
        (!self.deferred).then_some(name)
    }
}

impl DataSets {
    /// The data sets of the states in the directory `states`: those below `configured`, else those
    /// that the table of mounts tells of. Nothing where states are directories.
    ///
    /// # Errors
    /// When the table of mounts cannot be read.
    pub fn find(states: &Path, configured: Option<&str>) -> Result<Option<Self>, StoreError> {
        let base = match configured {
            Some(base) => Some(base.to_owned()),
            None => probe::base(states)?,
        };
        let program = Arc::new(program::Program::of_host());
        Ok(base.map(|base| Self::with_runner(program, base, states)))
    }

    /// Data sets below `base`, as `runner` knows them.
    pub(crate) fn with_runner(runner: Arc<dyn Runner>, base: String, states: &Path) -> Self {
        Self {
            runner,
            base,
            states: states.to_owned(),
        }
    }

    /// The name of a state's data set.
    pub(crate) fn name(&self, state: &Name) -> String {
        format!("{}/{state}", self.base)
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, StoreError> {
        program::run(self.runner.as_ref(), arguments)
    }

    fn change(&self, arguments: &[&str]) -> Result<(), StoreError> {
        fault::point("before zfs changes something");
        self.ask(arguments)?;
        fault::point("after zfs changed something");
        Ok(())
    }

    /// Every data set that is one level below the base.
    pub(crate) fn all(&self) -> Result<Vec<DataSet>, StoreError> {
        let columns = "name,mountpoint,mounted";
        let listed = self.ask(&[
            "list",
            "-H",
            "-p",
            "-t",
            "filesystem",
            "-d",
            "1",
            "-o",
            columns,
            &self.base,
        ])?;
        Ok(listed.lines().filter_map(|line| self.set(line)).collect())
    }

    fn set(&self, line: &str) -> Option<DataSet> {
        let mut columns = line.split('\t');
        Some(DataSet {
            name: self.state(columns.next()?)?,
            mountpoint: columns.next()?.into(),
            mounted: columns.next()? == "yes",
        })
    }

    /// The state whose data set has this name.
    fn state(&self, set: &str) -> Option<Name> {
        let name = set.strip_prefix(&self.base)?.strip_prefix('/')?;
        name.parse().ok()
    }

    /// The data set of a state; nothing if the state is a directory, or not there.
    pub(crate) fn of(&self, state: &Name) -> Result<Option<DataSet>, StoreError> {
        let mut sets = self.all()?.into_iter();
        Ok(sets.find(|set| set.name == *state && set.mountpoint == self.place("", state)))
    }

    /// Every snapshot of a data set that is one level below the base, the oldest first.
    pub(crate) fn snapshots(&self) -> Result<Vec<SetSnapshot>, StoreError> {
        let columns =
            format!("name,guid,creation,referenced,defer_destroy,clones,{RESET},{MANIFEST}");
        let listed = self.ask(&[
            "list",
            "-H",
            "-p",
            "-t",
            "snapshot",
            "-r",
            "-s",
            "createtxg",
            "-o",
            &columns,
            &self.base,
        ])?;
        Ok(listed
            .lines()
            .filter_map(|line| self.snapshot_in(line))
            .collect())
    }

    fn snapshot_in(&self, line: &str) -> Option<SetSnapshot> {
        let mut columns = line.split('\t');
        let (set, name) = columns.next()?.split_once('@')?;
        let state = self.state(set)?;
        let mut next = || columns.next().filter(|text| *text != NONE);
        Some(SetSnapshot {
            state,
            name: name.to_owned(),
            guid: next()?.to_owned(),
            created: next()?.parse().ok()?,
            referenced: next()?.parse().ok()?,
            deferred: next() == Some("on"),
            clones: next().map_or_else(Vec::new, split),
            reset: next().map(str::to_owned),
            manifest: next().and_then(|text| Manifest::parse(text).ok()),
        })
    }

    /// Those of one state that are shown, the oldest first.
    pub(crate) fn snapshots_of(
        &self,
        state: &Name,
    ) -> Result<Vec<(Name, SetSnapshot)>, StoreError> {
        let all = self.snapshots()?.into_iter();
        let its = all.filter(|snapshot| snapshot.state == *state);
        Ok(its.filter_map(|it| Some((it.visible()?, it))).collect())
    }

    /// One of them.
    pub(crate) fn snapshot_of(
        &self,
        state: &Name,
        snapshot: &Name,
    ) -> Result<Option<SetSnapshot>, StoreError> {
        let mut its = self.snapshots_of(state)?.into_iter();
        Ok(its.find(|(name, _)| name == snapshot).map(|(_, it)| it))
    }

    /// Where a data set is mounted while it is made or removed, or for good with no prefix.
    pub(crate) fn place(&self, prefix: &str, state: &Name) -> PathBuf {
        self.states.join(format!("{prefix}{state}"))
    }

    fn mountpoint(&self, prefix: &str, state: &Name) -> String {
        format!("mountpoint={}", self.place(prefix, state).display())
    }

    /// Makes an empty data set that is not a state yet.
    pub(crate) fn create(&self, state: &Name) -> Result<(), StoreError> {
        let mountpoint = self.mountpoint(NEW, state);
        self.change(&["create", "-o", &mountpoint, &self.name(state)])
    }

    /// Makes a data set of a snapshot, that is not a state yet.
    pub(crate) fn clone_of(&self, source: (&Name, &str), state: &Name) -> Result<(), StoreError> {
        let mountpoint = self.mountpoint(NEW, state);
        let source = self.snapshot_name(source);
        self.change(&["clone", "-o", &mountpoint, &source, &self.name(state)])
    }

    /// Makes a state of what was being made. Nothing in it may be open.
    pub(crate) fn publish(&self, state: &Name) -> Result<(), StoreError> {
        self.change(&["set", &self.mountpoint("", state), &self.name(state)])?;
        remove_empty(&self.place(NEW, state));
        Ok(())
    }

    /// Takes a state away, to be destroyed. Nothing in it may be open.
    pub(crate) fn hide(&self, state: &Name) -> Result<(), StoreError> {
        self.change(&["set", &self.mountpoint(OLD, state), &self.name(state)])?;
        remove_empty(&self.place("", state));
        Ok(())
    }

    fn snapshot_name(&self, (state, snapshot): (&Name, &str)) -> String {
        format!("{}@{snapshot}", self.name(state))
    }

    /// Takes a snapshot that is nobody's.
    pub(crate) fn snapshot_hidden(&self, source: (&Name, &str)) -> Result<(), StoreError> {
        self.change(&["snapshot", &self.snapshot_name(source)])
    }

    /// Takes a snapshot; it comes to be with its manifest.
    pub(crate) fn snapshot(
        &self,
        manifest: &Manifest,
        reset: Option<&str>,
    ) -> Result<(), StoreError> {
        let text = serde_json::to_string(manifest);
        let text = text.map_err(|error| StoreError::at("describe", &self.states)(error.into()))?;
        let property = format!("{MANIFEST}={text}");
        let name = self.snapshot_name((&manifest.state, manifest.snapshot.as_str()));
        let reset = reset.map(|image| format!("{RESET}={image}"));
        let mut arguments = vec!["snapshot", "-o", &property];
        if let Some(reset) = &reset {
            arguments.extend(["-o", reset]);
        }
        arguments.push(&name);
        self.change(&arguments)
    }

    /// Notes that the image which a snapshot was taken to reset is gone.
    pub(crate) fn reset_done(&self, source: (&Name, &str)) -> Result<(), StoreError> {
        self.change(&["inherit", RESET, &self.snapshot_name(source)])
    }

    /// Removes a snapshot. What depends on it keeps what it needs.
    pub(crate) fn destroy_snapshot(&self, snapshot: &SetSnapshot) -> Result<(), StoreError> {
        let state = &snapshot.state;
        if snapshot.clones.is_empty() {
            return self.change(&["destroy", &self.snapshot_name((state, &snapshot.name))]);
        }
        let hidden = self.hide_snapshot(snapshot)?;
        self.forget_snapshot((state, &hidden))
    }

    /// Renames a snapshot so that it is nobody's.
    fn hide_snapshot(&self, snapshot: &SetSnapshot) -> Result<String, StoreError> {
        let hidden = format!("{OLD}{}", snapshot.guid);
        if snapshot.name != hidden {
            let from = self.snapshot_name((&snapshot.state, &snapshot.name));
            let to = self.snapshot_name((&snapshot.state, &hidden));
            self.change(&["rename", &from, &to])?;
        }
        Ok(hidden)
    }

    /// Has a hidden snapshot go as soon as nothing depends on it.
    pub(crate) fn forget_snapshot(&self, source: (&Name, &str)) -> Result<(), StoreError> {
        self.change(&["destroy", "-d", &self.snapshot_name(source)])
    }
}

/// Removes the directory that a data set was mounted over: ZFS leaves it, and an empty one would be
/// taken for a state. One that is not empty, or in use, is not that.
fn remove_empty(dir: &Path) {
    let _ = std::fs::remove_dir(dir);
}

/// The names in a list, in an order of their own: ZFS has another one each time.
fn split(list: &str) -> Vec<String> {
    let names = list.split(',').filter(|name| !name.is_empty());
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    names.sort_unstable();
    names
}
