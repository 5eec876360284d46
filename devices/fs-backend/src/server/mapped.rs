//! What is mapped in the window, as far as this backend was asked for it: so that it can be saved, and
//! mapped again by another one.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, MutexGuard, PoisonError};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{MAPPING_BYTES, Part, Server, StateError};
use crate::inode::NodeId;
use crate::share::Stat;

/// What is mapped, by where in the window, in pieces of [`MAPPING_BYTES`]: as many as the window has,
/// at most.
#[derive(Debug, Default)]
pub(super) struct Mapped(BTreeMap<u64, Piece>);

/// One piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    /// Id of the file.
    node: u64,
    /// Where in the file it begins, in bytes.
    file_offset: u64,
}

/// A mapping as it is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedMapping {
    /// Id of the file, as the guest knows it.
    node: u64,
    /// Where in the window, in bytes.
    offset: u64,
    /// How much, in bytes.
    len: u64,
    /// From where in the file, in bytes.
    file_offset: u64,
}

impl SavedMapping {
    fn part(&self) -> Part {
        Part {
            offset: self.offset,
            len: self.len,
            file_offset: self.file_offset,
        }
    }
}

impl Mapped {
    /// Takes note that `part` of a file is mapped, in the place of what was there.
    pub(super) fn add(&mut self, node: NodeId, part: Part) {
        let node = node.raw();
        for (offset, file_offset) in pieces(part.offset, part.len).zip(steps(part.file_offset)) {
            self.0.insert(offset, Piece { node, file_offset });
        }
    }

    /// Takes note that nothing is mapped at a place.
    pub(super) fn remove(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        self.0.retain(|at, _| !(offset..end).contains(at));
    }

    /// All of it, with what belongs together in one.
    fn save(&self) -> Vec<SavedMapping> {
        let mut list: Vec<SavedMapping> = Vec::new();
        for (&offset, &Piece { node, file_offset }) in &self.0 {
            if let Some(last) = list.last_mut()
                && last.node == node
                && last.offset.checked_add(last.len) == Some(offset)
                && last.file_offset.checked_add(last.len) == Some(file_offset)
            {
                last.len = last.len.saturating_add(MAPPING_BYTES);
                continue;
            }
            list.push(SavedMapping {
                node,
                offset,
                len: MAPPING_BYTES,
                file_offset,
            });
        }
        list
    }
}

/// Where the pieces of a place begin.
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = u64> {
    let end = offset.saturating_add(len);
    steps(offset).take_while(move |at| *at < end)
}

fn steps(from: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(from), |at| at.checked_add(MAPPING_BYTES))
}

impl Server {
    pub(super) fn saved_mappings(&self) -> Vec<SavedMapping> {
        self.mapped().save()
    }

    /// Whether mappings can be what a backend with this window saved.
    pub(super) fn is_possible(&self, mappings: &[SavedMapping]) -> bool {
        let mut end = 0;
        mappings.iter().all(|one| {
            let after = one.offset >= end;
            end = one.offset.saturating_add(one.len);
            let file_end = one.file_offset.checked_add(one.len);
            after
                && self.fits(one.offset, one.len).is_ok()
                && one.file_offset.is_multiple_of(MAPPING_BYTES)
                && file_end.is_some_and(|end| i64::try_from(end).is_ok())
        })
    }

    /// Maps files again, as far as they are still there; in the places of others the guest finds
    /// zeroes.
    pub(super) fn map_again(&self, mappings: &[SavedMapping]) -> Result<(), StateError> {
        self.clear_window().map_err(StateError::Window)?;
        let mut gone = 0_usize;
        for mapping in mappings {
            let id = NodeId::from_raw(mapping.node);
            let mut part = mapping.part();
            let Ok((file, size)) = self.mappable(id, part) else {
                gone = gone.saturating_add(1);
                continue;
            };
            let there = size.saturating_sub(part.file_offset);
            part.len = part.len.min(there.next_multiple_of(MAPPING_BYTES));
            self.map_part(id, &file, part).map_err(StateError::Window)?;
        }
        if gone > 0 {
            tracing::warn!(
                gone,
                "The guest sees zeroes in place of files that it had mapped"
            );
        }
        Ok(())
    }

    /// The file of which `part` is to be mapped, and its size, in bytes.
    pub(super) fn mappable(&self, id: NodeId, part: Part) -> Result<(Arc<OwnedFd>, u64), Errno> {
        let file = self.tree.file(id)?;
        let size = Stat::of(file.as_fd())?.size();
        // Linux asks for no part beyond the end of a file, unless it became shorter meanwhile.
        if part.file_offset < size {
            Ok((file, size))
        } else {
            Err(Errno::INVAL)
        }
    }

    /// Maps `part` of a file, in the place of what was there.
    pub(super) fn map_part(&self, id: NodeId, file: &OwnedFd, part: Part) -> Result<(), Errno> {
        // Held until it is mapped: what is noted is what is there.
        let mut mapped = self.mapped();
        mapped.remove(part.offset, part.len);
        self.with_mapper(|mapper| mapper.map(file.as_fd(), part))?;
        mapped.add(id, part);
        Ok(())
    }

    /// Shows nothing at a place of the window.
    pub(super) fn unmap_part(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let mut mapped = self.mapped();
        self.with_mapper(|mapper| mapper.unmap(offset, len))?;
        mapped.remove(offset, len);
        Ok(())
    }

    fn mapped(&self) -> MutexGuard<'_, Mapped> {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
