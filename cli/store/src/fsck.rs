//! Finds what is not as it should be, explains it, and mends what can be mended without a choice.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::assignments::{self, Assignments};
use crate::building::{is_alive, leftovers};
use crate::error::StoreError;
use crate::layout::{IMAGE, Layout, NEW, PART, names};
use crate::name::Name;
use crate::snapshot::{self, Manifest};
use crate::store::{Store, recover};
use crate::{durable, lock};

/// What became of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// The next command that changes the store mends it, or `--repair` does.
    Repairable,
    /// It was mended just now.
    Repaired,
    /// Somebody has to decide.
    Decide,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub path: PathBuf,
    /// What is wrong, where it comes from and what can be done.
    pub explanation: String,
    /// What becomes of it.
    pub remedy: Remedy,
}

/// Whether to change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only look.
    Look,
    /// Mend what can be mended without a choice.
    Repair,
}

impl Store {
    /// Looks the whole store over. No command changes it meanwhile.
    ///
    /// # Errors
    /// When the store cannot be read, or not be mended.
    pub fn fsck(&self, mode: Mode) -> Result<Vec<Finding>, StoreError> {
        let locked = self.lock_as_it_is()?;
        let mut found = look(self)?;
        if mode == Mode::Look {
            return Ok(found);
        }
        let links = wrong_links(self.layout())?;
        recover(&locked)?;
        for (slot, state) in links {
            // The journal, carried out just now, may have mended it already.
            assignments::link(self.layout(), &slot, Some(&state))?;
        }
        remove_unfinished(self.layout())?;
        for finding in &mut found {
            if finding.remedy == Remedy::Repairable {
                finding.remedy = Remedy::Repaired;
            }
        }
        Ok(found)
    }
}

fn look(store: &Store) -> Result<Vec<Finding>, StoreError> {
    let layout = store.layout();
    let mut found = Vec::new();
    let mut report = |path: PathBuf, remedy, explanation: String| {
        found.push(Finding {
            path,
            explanation,
            remedy,
        });
    };
    if assignments::pending(layout)?.is_some() {
        let text = "a change of assignments that a killed command had decided: it is carried out";
        report(layout.journal(), Remedy::Repairable, text.to_owned());
    }
    let in_sets = left_in_data_sets(store)?;
    for path in all_leftovers(layout)? {
        if in_sets.iter().any(|(other, _)| *other == path) {
            continue;
        }
        report(path.clone(), Remedy::Repairable, explain_leftover(&path));
    }
    for (path, text) in in_sets {
        report(path, Remedy::Repairable, text.to_owned());
    }
    for path in unfinished(layout)? {
        let text = "an image that a killed slotvmm had not finished making: it is removed";
        report(path, Remedy::Repairable, text.to_owned());
    }
    for (slot, state) in wrong_links(layout)? {
        let text = format!("{slot} has state '{state}' and does not boot with it: it is linked");
        report(layout.link(&slot), Remedy::Repairable, text);
    }
    for (path, text) in undecided(store)? {
        report(path, Remedy::Decide, text);
    }
    Ok(found)
}

fn left_in_data_sets(store: &Store) -> Result<Vec<(PathBuf, &'static str)>, StoreError> {
    let Some(sets) = store.data_sets() else {
        return Ok(Vec::new());
    };
    let found = sets.leftovers()?.into_iter();
    Ok(found.map(|it| (it.path(sets), it.explanation())).collect())
}

fn all_leftovers(layout: &Layout) -> Result<Vec<PathBuf>, StoreError> {
    let mut found = leftovers(&layout.states())?;
    for state in layout.all_states()? {
        found.extend(leftovers(&layout.snapshots(&state))?);
    }
    for slot in layout.slots()? {
        found.extend(leftovers(&layout.slot(&slot))?);
    }
    let files = [&layout.assignments, &layout.journal()];
    let files = files.map(|path| crate::building::beside(path, NEW));
    found.extend(files.into_iter().filter(|path| path.exists()));
    Ok(found)
}

fn explain_leftover(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if !name.starts_with(NEW) {
        return "what a killed command was removing: the rest is removed".to_owned();
    }
    if path.is_dir() && snapshot::is_complete(path) {
        return "a whole snapshot whose command was killed at the last step: it gets its name"
            .to_owned();
    }
    "what a killed command was making: it is removed".to_owned()
}

/// Images that `slotvmm run` began to make in a state; their maker holds a lock.
fn unfinished(layout: &Layout) -> Result<Vec<PathBuf>, StoreError> {
    let states = layout.all_states()?;
    let dirs = states.iter().map(|state| layout.state(state));
    let images = dirs.map(|dir| dir.join(format!(".{IMAGE}.new")));
    let idle = |path: &PathBuf| {
        let file = fs::File::open(path);
        file.and_then(|file| lock::is_busy(&file, lock::Access::Exclusive))
            .is_ok_and(|busy| !busy)
    };
    Ok(images.filter(idle).collect())
}

fn remove_unfinished(layout: &Layout) -> Result<(), StoreError> {
    unfinished(layout)?
        .iter()
        .try_for_each(|path| durable::remove_file(path))
}

/// Slots whose links do not lead to the state that the file says they have.
fn wrong_links(layout: &Layout) -> Result<Vec<(Name, Name)>, StoreError> {
    let assignments = Assignments::read(layout)?;
    let wrong = assignments.iter().filter(|(slot, state)| {
        let link = fs::read_link(layout.link(slot)).ok();
        link != Some(layout.image(state)) && layout.state(state).is_dir()
    });
    let wrong = wrong.map(|(slot, state)| (slot.clone(), state.clone()));
    Ok(wrong.collect())
}

/// What needs a decision.
fn undecided(store: &Store) -> Result<Vec<(PathBuf, String)>, StoreError> {
    let layout = store.layout();
    let mut found = Vec::new();
    let mut owners: BTreeMap<Name, Name> = BTreeMap::new();
    for (slot, state) in Assignments::read(layout)?.iter() {
        if !layout.state(state).is_dir() {
            let text = format!(
                "{slot} has state '{state}', which does not exist: create it, or assign another"
            );
            found.push((layout.assignments.clone(), text));
        }
        if let Some(other) = owners.insert(state.clone(), slot.clone()) {
            let text = format!(
                "{other} and {slot} both have state '{state}', which only one can run: \
                 assign another to one of them"
            );
            found.push((layout.assignments.clone(), text));
        }
    }
    for entry in durable::entries(&layout.states())? {
        let path = layout.states().join(&entry);
        if entry.starts_with(PART) && !is_alive(&path)? {
            let text = "an import that broke off: export again with the `--from` that it said, or \
                        remove this directory";
            found.push((path, text.to_owned()));
        }
    }
    for state in layout.all_states()? {
        for snapshot in names(&layout.snapshots(&state))? {
            let dir = layout.snapshot(&state, &snapshot);
            found.extend(judge_snapshot(&dir).map(|text| (dir, text)));
        }
    }
    Ok(found)
}

fn judge_snapshot(dir: &Path) -> Option<String> {
    let have = fs::metadata(dir.join(IMAGE)).ok().map(|image| image.len());
    let bytes = |bytes: Option<u64>| bytes.map_or("no".to_owned(), |bytes| bytes.to_string());
    match Manifest::read(dir) {
        Ok(manifest) if manifest.bytes == have => None,
        Ok(manifest) => Some(format!(
            "a snapshot whose image has {} bytes where its manifest says {}: \
             something else changed it; delete it, or copy it back",
            bytes(have),
            bytes(manifest.bytes)
        )),
        Err(error) => Some(format!(
            "a snapshot whose manifest cannot be read ({error}): delete it, or restore it and \
             check what it holds"
        )),
    }
}
