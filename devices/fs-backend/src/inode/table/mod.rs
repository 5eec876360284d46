//! The table of inodes: a slab, and an index from identity to place.

mod saved;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;

pub use self::saved::Saved;
use super::{Identity, NodeId};

/// Inodes that are kept at most. A guest can only name what is on the host, so this bounds the
/// memory that a share with very many files costs, at about 120 bytes each.
pub const MAX_NODES: usize = 1 << 24;

/// Directories between an inode and the root at most. Paths of the host can be deeper than this
/// only step by step; a loop, which renames on the host could build out of old names, ends here.
const MAX_DEPTH: usize = 1 << 14;

/// Why the table cannot do what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The id means nothing, or not any more.
    #[error("The inode is not known: expected an id from an earlier reply")]
    Unknown,
    /// There are [`MAX_NODES`] already.
    #[error("The table of inodes is full")]
    Full,
}

/// An inode that the guest references.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub identity: Identity,
    /// Place of the directory it was last found in.
    parent: u32,
    generation: u32,
    /// Inodes whose path leads through this one.
    children: u32,
    /// References that the guest holds.
    lookups: u64,
    /// Its name in that directory; empty for the root.
    pub name: Box<[u8]>,
}

#[derive(Debug)]
enum Slot {
    Used(Node),
    Free { next: Option<u32> },
}

/// What [`Table::path`] found of an ancestor, and the names from there on.
pub type Path<T> = (Option<T>, Vec<Box<[u8]>>);

/// Ids that mean nothing any more.
pub type Removed = Vec<NodeId>;

/// The inodes that the guest references.
#[derive(Debug)]
pub struct Table {
    slots: Vec<Slot>,
    /// Inodes at places that `slots` does not reach yet, out of a saved state.
    far: BTreeMap<u32, Node>,
    free: Option<u32>,
    by_identity: HashTable<u32>,
    hasher: RandomState,
    generation: u32,
}

impl Table {
    /// Just the root. Ids begin at the generation `seed`.
    pub fn new(root: Identity, seed: u32) -> Self {
        let mut table = Self {
            slots: Vec::new(),
            far: BTreeMap::new(),
            free: None,
            by_identity: HashTable::new(),
            hasher: RandomState::new(),
            generation: seed,
        };
        table.slots.push(Slot::Used(Node {
            identity: root,
            parent: 0,
            generation: 0,
            children: 0,
            lookups: 1,
            name: Box::default(),
        }));
        table
    }

    /// How many inodes there are, with the root.
    pub fn len(&self) -> usize {
        self.by_identity.len() + 1
    }

    /// How many places there are, taken or not.
    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.slots.len() + self.far.len()
    }

    /// Whether only the root is left.
    pub fn is_empty(&self) -> bool {
        self.by_identity.is_empty()
    }

    /// Generation at which another table may go on.
    pub fn next_generation(&self) -> u32 {
        self.generation
    }

    /// The inode `id`.
    ///
    /// # Errors
    /// [`TableError::Unknown`].
    pub fn get(&self, id: NodeId) -> Result<&Node, TableError> {
        let (index, generation) = id.split();
        self.at(index)
            .filter(|node| node.generation == generation)
            // Only one id is the root's.
            .filter(|_| index != 0 || id == NodeId::ROOT)
            .ok_or(TableError::Unknown)
    }

    /// The directory that `id` was last found in; the root's is the root.
    ///
    /// # Errors
    /// [`TableError::Unknown`].
    pub fn parent(&self, id: NodeId) -> Result<NodeId, TableError> {
        let index = self.get(id)?.parent;
        self.id(index).ok_or(TableError::Unknown)
    }

    /// Names from an ancestor down to `id`, and what `stop` said of that ancestor: the nearest one
    /// it says something of, or the root.
    ///
    /// # Errors
    /// [`TableError::Unknown`], also for a path that is deeper than can be.
    pub fn path<T>(
        &self,
        id: NodeId,
        mut stop: impl FnMut(NodeId) -> Option<T>,
    ) -> Result<Path<T>, TableError> {
        let mut names = Vec::new();
        let mut id = id;
        while id != NodeId::ROOT {
            if names.len() == MAX_DEPTH {
                return Err(TableError::Unknown);
            }
            names.push(self.get(id)?.name.clone());
            id = self.parent(id)?;
            if let Some(found) = stop(id) {
                names.reverse();
                return Ok((Some(found), names));
            }
        }
        names.reverse();
        Ok((None, names))
    }

    /// Notes that the guest was told of `identity`, found as `name` in `parent`, and gives its id.
    ///
    /// # Errors
    /// When the directory is not known, or the table is full.
    pub fn reference(
        &mut self,
        parent: NodeId,
        name: &[u8],
        identity: Identity,
    ) -> Result<NodeId, TableError> {
        self.get(parent)?;
        let (parent, _) = parent.split();
        if self.at(0).is_some_and(|root| root.identity == identity) {
            return Ok(NodeId::ROOT);
        }
        match self.find(&identity) {
            Some(index) => {
                self.relocate(index, parent, name);
                if let Some(node) = self.at_mut(index) {
                    node.lookups = node.lookups.saturating_add(1);
                }
                self.id(index).ok_or(TableError::Unknown)
            }
            None => self.insert(parent, name, identity),
        }
    }

    /// Drops `count` of the guest's references to `id`. More than there are drops all; an id that
    /// is not known is nothing to drop.
    pub fn forget(&mut self, id: NodeId, count: u64) -> Removed {
        if id == NodeId::ROOT || self.get(id).is_err() {
            return Vec::new();
        }
        let (index, _) = id.split();
        if let Some(node) = self.at_mut(index) {
            node.lookups = node.lookups.saturating_sub(count);
        }
        self.sweep(index)
    }

    /// Removes the inode at `index`, and the directories above it, as far as nothing references
    /// them.
    fn sweep(&mut self, index: u32) -> Removed {
        let mut removed = Vec::new();
        let mut index = index;
        while let Some((id, parent)) = self.remove_unused(index) {
            removed.push(id);
            index = parent;
        }
        removed
    }

    fn insert(
        &mut self,
        parent: u32,
        name: &[u8],
        identity: Identity,
    ) -> Result<NodeId, TableError> {
        let index = match self.free {
            Some(index) => {
                if let Some(Slot::Free { next }) = self.slots.get(index as usize) {
                    self.free = *next;
                }
                index
            }
            None => self.grow()?,
        };
        // Zero is the root's.
        self.generation = self.generation.wrapping_add(1).max(1);
        let node = Node {
            identity,
            parent,
            generation: self.generation,
            children: 0,
            lookups: 1,
            name: name.into(),
        };
        self.place(index, node);
        self.adopt(parent);
        Ok(NodeId::new(index, self.generation))
    }

    /// A free place at the end.
    fn grow(&mut self) -> Result<u32, TableError> {
        loop {
            if self.slots.len() >= MAX_NODES {
                return Err(TableError::Full);
            }
            let index = u32::try_from(self.slots.len()).map_err(|_| TableError::Full)?;
            match self.far.remove(&index) {
                Some(node) => self.slots.push(Slot::Used(node)),
                None => {
                    self.slots.push(Slot::Free { next: None });
                    return Ok(index);
                }
            }
        }
    }

    /// Puts `node` into the free place `index`.
    fn place(&mut self, index: u32, node: Node) {
        let hash = self.hasher.hash_one(node.identity);
        if let Some(slot) = self.slots.get_mut(index as usize) {
            *slot = Slot::Used(node);
        } else {
            self.far.insert(index, node);
        }
        let (slots, far, hasher) = (&self.slots, &self.far, &self.hasher);
        self.by_identity.insert_unique(hash, index, |&index| {
            node_at(slots, far, index).map_or(0, |node| hasher.hash_one(node.identity))
        });
    }

    /// The inode may have been found under another name, or in another directory.
    fn relocate(&mut self, index: u32, parent: u32, name: &[u8]) {
        let Some(node) = self.at_mut(index) else {
            return;
        };
        if *node.name != *name {
            node.name = name.into();
        }
        let old = std::mem::replace(&mut node.parent, parent);
        if old != parent {
            self.adopt(parent);
            self.abandon(old);
            self.sweep(old);
        }
    }

    fn adopt(&mut self, parent: u32) {
        if let Some(node) = self.at_mut(parent) {
            node.children = node.children.saturating_add(1);
        }
    }

    fn abandon(&mut self, parent: u32) {
        if let Some(node) = self.at_mut(parent) {
            node.children = node.children.saturating_sub(1);
        }
    }

    /// Removes the inode at `index` if nothing references it; gives its id and its directory.
    fn remove_unused(&mut self, index: u32) -> Option<(NodeId, u32)> {
        let node = self.at(index)?;
        if index == 0 || node.lookups > 0 || node.children > 0 {
            return None;
        }
        let (id, parent) = (NodeId::new(index, node.generation), node.parent);
        let hash = self.hasher.hash_one(node.identity);
        if let Ok(entry) = self.by_identity.find_entry(hash, |&other| other == index) {
            entry.remove();
        }
        self.release(index);
        self.abandon(parent);
        Some((id, parent))
    }

    fn release(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            *slot = Slot::Free { next: self.free };
            self.free = Some(index);
        } else {
            self.far.remove(&index);
        }
    }

    fn find(&self, identity: &Identity) -> Option<u32> {
        let hash = self.hasher.hash_one(identity);
        let same = |&index: &u32| {
            self.at(index)
                .is_some_and(|node| node.identity == *identity)
        };
        self.by_identity.find(hash, same).copied()
    }

    fn id(&self, index: u32) -> Option<NodeId> {
        if index == 0 {
            return Some(NodeId::ROOT);
        }
        Some(NodeId::new(index, self.at(index)?.generation))
    }

    fn at(&self, index: u32) -> Option<&Node> {
        node_at(&self.slots, &self.far, index)
    }

    fn at_mut(&mut self, index: u32) -> Option<&mut Node> {
        match self.slots.get_mut(index as usize) {
            Some(Slot::Used(node)) => Some(node),
            Some(Slot::Free { .. }) => None,
            None => self.far.get_mut(&index),
        }
    }
}

fn node_at<'a>(slots: &'a [Slot], far: &'a BTreeMap<u32, Node>, index: u32) -> Option<&'a Node> {
    match slots.get(index as usize) {
        Some(Slot::Used(node)) => Some(node),
        Some(Slot::Free { .. }) => None,
        None => far.get(&index),
    }
}
