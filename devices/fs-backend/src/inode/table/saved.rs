//! The table as it is saved, and taken over by another backend.

use serde::{Deserialize, Serialize};

use super::{MAX_NODES, Node, Slot, Table, TableError};
use crate::inode::{Identity, Kind, NodeId};

/// Places that a restored table has at once, for each inode. Inodes beyond are few, as after a guest
/// that looked at very much and dropped most, or the state is hostile: a single inode at the last
/// place must not cost as much as a full table.
const PLACES_EACH: usize = 4;

/// An inode as it is saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Its id, as the guest knows it.
    pub id: u64,
    /// Id of the directory it was last found in.
    pub parent: u64,
    /// Its name there.
    pub name: Box<[u8]>,
    /// What it is.
    pub identity: Identity,
    /// References that the guest holds.
    pub lookups: u64,
}

impl Table {
    /// Everything but the root.
    pub fn save(&self) -> Vec<Saved> {
        let indices = (1..).zip(self.slots.iter().skip(1));
        let near = indices.filter_map(|(index, slot)| match slot {
            Slot::Used(node) => Some((index, node)),
            Slot::Free { .. } => None,
        });
        let far = self.far.iter().map(|(index, node)| (*index, node));
        let saved = near.chain(far).filter_map(|(index, node)| {
            Some(Saved {
                id: NodeId::new(index, node.generation).raw(),
                parent: self.id(node.parent)?.raw(),
                name: node.name.clone(),
                identity: node.identity,
                lookups: node.lookups,
            })
        });
        saved.collect()
    }

    /// Takes over what [`Self::save`] gave, which is checked: ids, directories and identities have
    /// to fit together.
    ///
    /// # Errors
    /// [`TableError`], when they do not.
    pub fn restore(root: Identity, seed: u32, saved: Vec<Saved>) -> Result<Self, TableError> {
        let mut table = Self::new(root, seed);
        let highest = saved.iter().map(|node| NodeId::from_raw(node.id).split().0);
        let highest = highest.max().unwrap_or(0);
        // Places are reused, so that there are hardly more of them than inodes were ever at once.
        if saved.len() >= MAX_NODES || highest as usize >= MAX_NODES {
            return Err(TableError::Full);
        }
        let places = saved.len().saturating_mul(PLACES_EACH);
        let places = places.min(highest as usize).saturating_add(1);
        table
            .slots
            .resize_with(places, || Slot::Free { next: None });
        for node in &saved {
            table.put_back(node)?;
        }
        for node in &saved {
            let parent = NodeId::from_raw(node.parent);
            let directory = table.get(parent)?.identity.kind == Kind::Directory;
            let (parent, _) = parent.split();
            let node = table.at_mut(parent).filter(|_| directory);
            let node = node.ok_or(TableError::Unknown)?;
            node.children = node.children.saturating_add(1);
        }
        for index in 1..u32::try_from(places).unwrap_or(u32::MAX) {
            if table.at(index).is_none() {
                table.release(index);
            }
        }
        Ok(table)
    }

    fn put_back(&mut self, saved: &Saved) -> Result<(), TableError> {
        let (index, generation) = NodeId::from_raw(saved.id).split();
        let taken = self.at(index).is_some();
        if index == 0 || generation == 0 || taken || self.find(&saved.identity).is_some() {
            return Err(TableError::Unknown);
        }
        let node = Node {
            identity: saved.identity,
            parent: NodeId::from_raw(saved.parent).split().0,
            generation,
            children: 0,
            lookups: saved.lookups,
            name: saved.name.clone(),
        };
        self.place(index, node);
        Ok(())
    }
}
