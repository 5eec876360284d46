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
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::layout::Layout;
use crate::name::Name;

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

    /// The slot that the file says has `state`.
    pub(crate) fn slot_of(&self, state: &Name) -> Option<&Name> {
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
