//! Which slot has which state: `{"slot1": "web"}`.
//!
//! The file and the slots' links say the same. A change of both is decided by writing it to a
//! journal; whoever holds the store's lock next carries out what a killed command had decided.
//!
//! A slot that the file does not name has the state that its link leads to, else the state of its
//! own name, unless another slot has that.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::building::Building;
use crate::error::StoreError;
use crate::layout::{Layout, NEW};
use crate::name::Name;
use crate::store::Locked;
use crate::{building, durable, fault};

/// Most bytes of the file that are read.
const MAX_FILE: u64 = 1 << 20;

/// What the file says: the state of each slot that it names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Assignments {
    slots: BTreeMap<Name, Name>,
}

impl Assignments {
    /// Reads the file; one that is absent or empty names no slot.
    ///
    /// # Errors
    /// When it cannot be read or is no JSON object of names.
    pub fn read(layout: &Layout) -> Result<Self, StoreError> {
        Ok(
            read_json(&layout.assignments, "an object of slots and their states")?
                .unwrap_or_default(),
        )
    }

    /// Every slot that the file names, and its state.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Name)> {
        self.slots.iter()
    }

    /// The slot that has `state`, if one does.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn owner_of(&self, layout: &Layout, state: &Name) -> Result<Option<Name>, StoreError> {
        if let Some(slot) = self.slot_of(state) {
            return Ok(Some(slot.clone()));
        }
        let mut slots = layout.slots()?.into_iter();
        Ok(slots.find(|slot| self.state_of(layout, slot).as_ref() == Some(state)))
    }

    /// The slot that the file says has `state`.
    fn slot_of(&self, state: &Name) -> Option<&Name> {
        let mut slots = self.slots.iter();
        slots.find(|(_, its)| *its == state).map(|(slot, _)| slot)
    }

    /// The state of `slot`: what the file says, else its link, else its own name.
    pub fn state_of(&self, layout: &Layout, slot: &Name) -> Option<Name> {
        if let Some(state) = self.slots.get(slot) {
            return Some(state.clone());
        }
        let link = layout.link(slot);
        let linked = fs::read_link(&link)
            .ok()
            .and_then(|target| layout.state_of_target(&target));
        let unclaimed = |state: &Name| self.slot_of(state).is_none();
        if linked.is_some() {
            return linked.filter(unclaimed);
        }
        // A slot with an image of its own has no state.
        let own = !link.exists() && layout.state(slot).is_dir() && unclaimed(slot);
        own.then(|| slot.clone())
    }
}

/// A change that is decided: the new state of each slot in it, or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    slots: BTreeMap<Name, Option<Name>>,
    /// The slot whose own image becomes that of its new state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    adopted: Option<Name>,
}

impl Change {
    /// Gives `slot` a state, or takes its away.
    pub(crate) fn set(mut self, slot: &Name, state: Option<&Name>) -> Self {
        self.slots.insert(slot.clone(), state.cloned());
        self
    }

    /// Gives `slot` the new state `state` with the image that the slot has of its own.
    pub(crate) fn adopt(slot: &Name, state: &Name) -> Self {
        Self {
            adopted: Some(slot.clone()),
            ..Self::default().set(slot, Some(state))
        }
    }

    /// Decides it and carries it out: after the first write it happens, whoever is killed. When the
    /// host refuses before the assignments are written, it is given up. A state in it that somebody
    /// else is making is refused: it could be carried out only when that is done.
    pub(crate) fn make(&self, locked: &Locked<'_>) -> Result<(), StoreError> {
        let layout = locked.layout();
        for state in self.slots.values().flatten() {
            if !layout.state(state).is_dir() {
                locked.require_unmade(state)?;
            }
        }
        let before = Assignments::read(layout)?;
        write_json(&layout.journal(), self)?;
        fault::point("a change of assignments is decided");
        let made = self.carry_out(locked);
        if made.is_err() && Assignments::read(layout)? == before {
            durable::remove_file(&layout.journal())?;
        }
        made
    }

    fn carry_out(&self, locked: &Locked<'_>) -> Result<(), StoreError> {
        let layout = locked.layout();
        let before = Assignments::read(layout)?;
        let mut after = before.clone();
        for (slot, state) in &self.slots {
            match state {
                Some(state) => after.slots.insert(slot.clone(), state.clone()),
                None => after.slots.remove(slot),
            };
        }
        if before != after {
            write_json(&layout.assignments, &after)?;
        }
        for (slot, state) in &self.slots {
            if let Some(state) = state {
                // A state that is assigned before it exists comes to be in this way.
                if !layout.state(state).is_dir() {
                    Building::begin_state(locked, state)?.finish_locked(locked)?;
                }
                if self.adopted.as_ref() == Some(slot) {
                    adopt(layout, slot, state)?;
                }
            }
            link(layout, slot, state.as_ref())?;
        }
        durable::remove_file(&layout.journal())
    }
}

/// Moves the image that a slot has of its own into a state that has none; done if it has none.
fn adopt(layout: &Layout, slot: &Name, state: &Name) -> Result<(), StoreError> {
    let own = layout.link(slot);
    if fs::symlink_metadata(&own).is_ok_and(|own| own.is_file()) {
        durable::rename_new(&own, &layout.image(state))?;
    }
    Ok(())
}

/// Carries out what a killed command had decided.
pub(crate) fn recover(locked: &Locked<'_>) -> Result<(), StoreError> {
    match pending(locked.layout())? {
        Some(change) => change.carry_out(locked),
        None => Ok(()),
    }
}

/// A change that was decided and is not carried out.
pub(crate) fn pending(layout: &Layout) -> Result<Option<Change>, StoreError> {
    read_json(
        &layout.journal(),
        "a change of assignments; remove it to keep them as they are",
    )
}

/// Makes a slot's link say what the file says.
pub(crate) fn link(layout: &Layout, slot: &Name, state: Option<&Name>) -> Result<(), StoreError> {
    let link = layout.link(slot);
    let there = fs::read_link(&link);
    let Some(state) = state else {
        return there.map_or(Ok(()), |_| durable::remove_file(&link));
    };
    let target = layout.image(state);
    if there.is_ok_and(|there| there == target) {
        return Ok(());
    }
    durable::ensure_dir(&layout.slot(slot))?;
    if fs::symlink_metadata(&link).is_ok_and(|there| !there.is_symlink()) {
        durable::rename_new(&link, &free_backup(&link))?;
    }
    let new = building::beside(&link, NEW);
    durable::remove_file(&new)?;
    std::os::unix::fs::symlink(&target, &new).map_err(StoreError::at("create link", &new))?;
    durable::inherit_owner(&new, &layout.slot(slot))?;
    durable::rename(&new, &link)
}

/// Where a slot's own image is kept: `data.img.backup`, or with the first number that is free.
pub(crate) fn free_backup(image: &Path) -> PathBuf {
    let mut backup = image.with_extension("img.backup");
    let mut number = 2_u32;
    while fs::symlink_metadata(&backup).is_ok() {
        backup = image.with_extension(format!("img.backup{number}"));
        number = number.saturating_add(1);
    }
    backup
}

/// Writes a small JSON file: readers see the old content or the new one.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| StoreError::at("describe", path)(error.into()))?;
    text.push(b'\n');
    durable::write(path, &text)
}

/// Reads a small JSON file; nothing if it is absent or empty.
pub(crate) fn read_json<T: for<'de> Deserialize<'de>>(
    path: &Path,
    expected: &'static str,
) -> Result<Option<T>, StoreError> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(StoreError::at("open", path))?,
    };
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, MAX_FILE), &mut text)
        .map_err(StoreError::at("read", path))?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let value = serde_json::from_str(&text).map_err(|source| StoreError::Damaged {
        path: path.to_owned(),
        expected,
        source,
    })?;
    Ok(Some(value))
}
