//! The inodes the guest references, and the way back to them.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::descriptors::Descriptors;
use super::{Budget, Directory, Name, Share, Stat};
use crate::inode::{Identity, Journal, Kind, NodeId, Removed, Saved, Table, TableError};

impl From<TableError> for Errno {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Unknown => Self::STALE,
            TableError::Full => Self::NFILE,
        }
    }
}

/// The inodes the guest references, and the way back to them.
#[derive(Debug)]
pub struct Tree {
    share: Share,
    table: Mutex<Table>,
    /// Taken while the table is held, so that records are in the order of what happened.
    journal: Mutex<Journal>,
    open: Descriptors,
}

impl Tree {
    /// Nothing is referenced yet.
    ///
    /// # Errors
    /// When the share cannot be looked at.
    pub fn new(share: Share, budget: Budget) -> Result<Self, Errno> {
        let root = Stat::of(share.root())?.identity();
        Ok(Self {
            share,
            table: Mutex::new(Table::new(root, random_generation())),
            journal: Mutex::default(),
            open: Descriptors::new(budget),
        })
    }

    /// Writes down what the guest learns from now on.
    pub fn write_down(&self, journal: Journal) {
        *self.journal() = journal;
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory that is shared.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// How many inodes are known, with the root.
    pub fn nodes(&self) -> usize {
        self.table().len()
    }

    /// How many descriptors are kept open.
    pub fn descriptors(&self) -> usize {
        self.open.directories.len() + self.open.files.len()
    }

    /// Looks `name` up in `parent`. The guest then holds a reference.
    ///
    /// # Errors
    /// `ESTALE` for a directory that is not known or not there any more; what the host says.
    pub fn lookup(&self, parent: NodeId, name: Name<'_>) -> Result<(NodeId, Stat), Errno> {
        let directory = self.directory(parent)?;
        self.lookup_in(parent, &directory, name)
    }

    /// As [`Self::lookup`], for a directory that is open.
    ///
    /// # Errors
    /// As [`Self::lookup`].
    pub fn lookup_in(
        &self,
        parent: NodeId,
        directory: &Directory,
        name: Name<'_>,
    ) -> Result<(NodeId, Stat), Errno> {
        let stat = self.share.stat_at(directory.fd(), name)?;
        let mut table = self.table();
        let before = table.next_generation();
        let identity = stat.identity();
        let id = table.reference(parent, name.bytes(), identity)?;
        if table.next_generation() != before {
            self.journal().known(Saved {
                id: id.raw(),
                parent: parent.raw(),
                name: name.bytes().into(),
                identity,
                lookups: 1,
            });
        }
        Ok((id, stat))
    }

    /// Drops `count` of the guest's references.
    pub fn forget(&self, id: NodeId, count: u64) {
        let removed: Removed = self.table().forget(id, count);
        self.open.close(&removed);
    }

    /// Drops every reference and closes everything, as for a new session. Ids that were given
    /// before mean nothing.
    ///
    /// # Errors
    /// When the share cannot be looked at.
    pub fn clear(&self) -> Result<(), Errno> {
        let root = Stat::of(self.share.root())?.identity();
        let mut table = self.table();
        *table = Table::new(root, table.next_generation());
        self.journal().begin();
        self.open.clear();
        Ok(())
    }

    /// The inodes that the guest references, and the identity of the root.
    pub(crate) fn save(&self) -> (Identity, Vec<Saved>) {
        let table = self.table();
        let root = table.get(NodeId::ROOT).map(|root| root.identity);
        let nodes = table.save();
        drop(table);
        let nothing = Identity {
            device: 0,
            ino: 0,
            born: 0,
            kind: Kind::Directory,
        };
        (root.unwrap_or(nothing), nodes)
    }

    /// Takes over inodes that were saved, in place of all that are known.
    ///
    /// # Errors
    /// `EINVAL` when they do not fit together; when the share cannot be looked at.
    pub(crate) fn restore(&self, nodes: Vec<Saved>) -> Result<(), Errno> {
        let root = Stat::of(self.share.root())?.identity();
        let table = Table::restore(root, random_generation(), nodes).map_err(|_| Errno::INVAL)?;
        let mut journal = self.journal();
        // What the backend after this one has to know, as if the guest had learnt it from this one.
        journal.begin();
        table
            .save()
            .into_iter()
            .for_each(|node| journal.known(node));
        drop(journal);
        *self.table() = table;
        self.open.clear();
        Ok(())
    }

    /// Attributes of an inode.
    ///
    /// # Errors
    /// `ESTALE` when its path leads nowhere, or to something else.
    pub fn stat(&self, id: NodeId) -> Result<Stat, Errno> {
        if id == NodeId::ROOT {
            return Stat::of(self.share.root());
        }
        if let Some(directory) = self.open.directories.get(id) {
            return Stat::of(directory.fd());
        }
        if let Some(file) = self.open.files.get(id) {
            return Stat::of(file.as_fd());
        }
        let (identity, parent, name) = {
            let table = self.table();
            let node = table.get(id)?;
            (node.identity, table.parent(id)?, node.name.clone())
        };
        let directory = self.directory(parent)?;
        let name = std::ffi::CString::new(name).map_err(|_| Errno::STALE)?;
        let stat = self.share.stat_at(directory.fd(), Name::new(&name)?);
        let stat = stat.map_err(moved)?;
        same(&stat, identity)?;
        Ok(stat)
    }

    /// An open directory.
    ///
    /// # Errors
    /// `ENOTDIR`; `ESTALE` when its path leads nowhere, or to something else; what the host says.
    pub fn directory(&self, id: NodeId) -> Result<Arc<Directory>, Errno> {
        if let Some(directory) = self.open.directories.get(id) {
            return Ok(directory);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = match self.open(id, Kind::Directory, flags) {
            // It may be searched, though not listed.
            Err(Errno::ACCESS) => self.open(id, Kind::Directory, OFlags::PATH | flags)?,
            fd => fd?,
        };
        Ok(self.open.directories.put(id, Directory::new(fd)))
    }

    /// An open regular file, for reading.
    ///
    /// # Errors
    /// `EISDIR`, `EINVAL`; `ESTALE` when its path leads nowhere, or to something else; what the
    /// host says.
    pub fn file(&self, id: NodeId) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(file) = self.open.files.get(id) {
            return Ok(file);
        }
        // Whatever takes the file's place in the meantime, nothing waits for it.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.open(id, Kind::File, flags)?;
        Ok(self.open.files.put(id, fd))
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// `EINVAL`; `ESTALE` when its path leads nowhere, or to something else; what the host says.
    pub fn readlink(&self, id: NodeId) -> Result<Vec<u8>, Errno> {
        let link = self.open(id, Kind::Symlink, OFlags::PATH)?;
        let target = rustix::fs::readlinkat(&link, c"", Vec::new())?;
        Ok(target.into_bytes())
    }

    /// Opens an inode by its path and makes sure that it is the one.
    fn open(&self, id: NodeId, kind: Kind, flags: OFlags) -> Result<OwnedFd, Errno> {
        let (identity, base, names) = {
            let table = self.table();
            let identity = table.get(id)?.identity;
            if identity.kind != kind {
                return Err(wrong_kind(identity.kind, kind));
            }
            let (base, names) = table.path(id, |id| self.open.directories.get(id))?;
            (identity, base, names)
        };
        let base = base.as_ref().map(|directory| directory.fd());
        let fd = match self.share.open_beneath(base, &names, flags) {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.open.shrink();
                self.share.open_beneath(base, &names, flags)
            }
            fd => fd,
        };
        let fd = fd.map_err(moved)?;
        same(&Stat::of(fd.as_fd())?, identity)?;
        Ok(fd)
    }
}

/// What was found by the path of a known inode has to be that inode.
fn same(stat: &Stat, identity: Identity) -> Result<(), Errno> {
    if stat.identity() == identity {
        Ok(())
    } else {
        Err(Errno::STALE)
    }
}

/// The path of a known inode led there once: an error of the path means that it does not any more.
fn moved(error: Errno) -> Errno {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NXIO => Errno::STALE,
        error => error,
    }
}

fn wrong_kind(is: Kind, wanted: Kind) -> Errno {
    match (is, wanted) {
        (_, Kind::Directory) => Errno::NOTDIR,
        (Kind::Directory, Kind::File) => Errno::ISDIR,
        _ => Errno::INVAL,
    }
}

/// Where the generations of a table begin. Two backends after one another, or a restored one,
/// must not give the same ids: what a guest kept from the first would mean something else.
fn random_generation() -> u32 {
    let mut bytes = [0; 4];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    if filled != Ok(bytes.len()) {
        // Early at boot there may be no random numbers: the clock has to do.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        return since.map_or(1, |since| since.subsec_nanos());
    }
    u32::from_ne_bytes(bytes)
}
