//! The DAX window: parts of files that the frontend maps for the guest.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::PoisonError;

use rustix::io::Errno;
use zerocopy::FromBytes as _;

use super::{Cache, Reply, Request, Server};
use crate::abi::attr::Attr;
use crate::abi::init;
use crate::abi::mapping::{
    ATTR_DAX, MAX_REMOVALS, RemoveMappingIn, RemoveMappingOne, SETUP_READ, SETUP_WRITE,
    SetupMappingIn,
};
use crate::inode::{Kind, NodeId};
use crate::share::Stat;

/// Mappings are multiples of this, in the window and in files, in bytes: what Linux asks for.
pub const MAPPING_BYTES: u64 = 2 << 20;

/// Files from this size on are read through the window, in bytes. A smaller one would take a whole
/// mapping, and is read with one or two requests.
pub const MIN_MAPPED_BYTES: u64 = 1 << 20;

/// Maps files into the guest's window, and returns when it can read them there.
pub trait Mapper: fmt::Debug + Send + Sync {
    /// Shows `len` bytes of `file` from `file_offset` on at `offset` of the window, in the place of
    /// what was there.
    ///
    /// # Errors
    /// When the place does not exist, or the host refuses.
    fn map(&self, file: BorrowedFd<'_>, part: Part) -> Result<(), Errno>;

    /// Shows nothing at `offset` of the window for `len` bytes.
    ///
    /// # Errors
    /// As [`Self::map`].
    fn unmap(&self, offset: u64, len: u64) -> Result<(), Errno>;
}

/// What is to be mapped where, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where in the window.
    pub offset: u64,
    /// How much.
    pub len: u64,
    /// From where in the file.
    pub file_offset: u64,
}

impl Server {
    /// Has files mapped by `mapper` from now on.
    pub fn set_mapper(&self, mapper: Box<dyn Mapper>) {
        *self.mapper.write().unwrap_or_else(PoisonError::into_inner) = Some(mapper);
    }

    /// Size of the window, when there is one, in bytes.
    pub fn window(&self) -> Option<u64> {
        self.policy.window
    }

    /// What the driver is offered for the window.
    pub(super) fn mapping_features(&self) -> u64 {
        let mapper = self.mapper.read().unwrap_or_else(PoisonError::into_inner);
        if self.policy.window.is_none() || mapper.is_none() || self.policy.cache == Cache::Never {
            return 0;
        }
        init::MAP_ALIGNMENT | init::HAS_INODE_DAX
    }

    /// Attributes as the guest is told, at the time `now`.
    pub(super) fn attributes(&self, stat: &Stat, now: i64) -> Attr {
        let mut attr = stat.attr(self.policy.owners, now);
        let large = stat.kind() == Kind::File && stat.size() >= MIN_MAPPED_BYTES;
        if large && self.mapping_features() != 0 {
            attr.flags |= ATTR_DAX;
        }
        attr
    }

    pub(super) fn setup_mapping(&self, id: NodeId, request: &Request<'_>) -> Result<Reply, Errno> {
        let asked: SetupMappingIn = request.structure()?;
        if asked.flags & SETUP_WRITE != 0 {
            return Err(Errno::ROFS);
        }
        if asked.flags & !SETUP_READ != 0 {
            return Err(Errno::INVAL);
        }
        self.fits(asked.moffset, asked.len)?;
        if !asked.foffset.is_multiple_of(MAPPING_BYTES) {
            return Err(Errno::INVAL);
        }
        let part = Part {
            offset: asked.moffset,
            len: asked.len,
            file_offset: asked.foffset,
        };
        let end = asked.foffset.checked_add(asked.len).ok_or(Errno::INVAL)?;
        if i64::try_from(end).is_err() {
            return Err(Errno::INVAL);
        }
        let (file, _) = self.mappable(id, part)?;
        self.map_part(id, &file, part)?;
        Ok(Reply::done())
    }

    pub(super) fn remove_mappings(&self, request: &Request<'_>) -> Result<Reply, Errno> {
        let (asked, list): (RemoveMappingIn, _) = request.split()?;
        if asked.count > MAX_REMOVALS {
            return Err(Errno::INVAL);
        }
        let many = list.chunks_exact(size_of::<RemoveMappingOne>());
        // The list may be shorter than announced: what is there is all there is.
        for one in many.take(asked.count as usize) {
            let one = RemoveMappingOne::read_from_bytes(one).map_err(|_| Errno::INVAL)?;
            self.fits(one.moffset, one.len)?;
            self.unmap_part(one.moffset, one.len)?;
        }
        Ok(Reply::done())
    }

    /// Empties the window, for a session that begins or ends.
    pub(super) fn clear_window(&self) -> Result<(), Errno> {
        match (self.policy.window, self.mapping_features()) {
            (None, _) | (_, 0) => Ok(()),
            (Some(window), _) => self.unmap_part(0, window),
        }
    }

    pub(super) fn with_mapper(
        &self,
        ask: impl FnOnce(&dyn Mapper) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mapper = self.mapper.read().unwrap_or_else(PoisonError::into_inner);
        mapper.as_deref().map_or(Err(Errno::NOSYS), ask)
    }

    /// Whether a mapping can be there.
    pub(super) fn fits(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let window = self.policy.window.ok_or(Errno::NOSYS)?;
        let end = offset.checked_add(len).ok_or(Errno::INVAL)?;
        let whole = offset.is_multiple_of(MAPPING_BYTES) && len.is_multiple_of(MAPPING_BYTES);
        if whole && len > 0 && end <= window {
            Ok(())
        } else {
            Err(Errno::INVAL)
        }
    }
}
