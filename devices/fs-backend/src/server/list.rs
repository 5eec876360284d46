//! Listings of directories, without and with attributes.

use rustix::io::Errno;
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::message::MAX_READ;
use super::{Reply, Request, Server};
use crate::abi::entry::{Dirent, EntryOut, dirent_len};
use crate::abi::requests::ReadIn;
use crate::inode::NodeId;
use crate::share::{Directory, Entry, Name, Take};

/// A listing under construction.
struct Page {
    bytes: Vec<u8>,
    room: usize,
}

impl Page {
    fn new(request: &ReadIn, room: usize) -> Self {
        let size = usize::try_from(request.size).unwrap_or(MAX_READ);
        Self {
            bytes: Vec::new(),
            room: size.min(room).min(MAX_READ),
        }
    }

    fn has_room(&self, len: usize) -> bool {
        self.room.saturating_sub(self.bytes.len()) >= len
    }

    /// Appends an entry, padded with zeroes. There has to be room.
    fn push(&mut self, entry: &Entry) {
        let name = entry.name.as_bytes();
        let end = self.bytes.len() + dirent_len(name.len());
        let dirent = Dirent {
            ino: entry.ino,
            off: entry.offset,
            // At most 255.
            namelen: u32::try_from(name.len()).unwrap_or(0),
            kind: entry.kind,
        };
        self.bytes.extend_from_slice(dirent.as_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.resize(end, 0);
    }
}

impl Server {
    pub(super) fn list(
        &self,
        id: NodeId,
        request: &Request<'_>,
        room: usize,
    ) -> Result<Reply, Errno> {
        let asked: ReadIn = request.structure()?;
        let mut page = Page::new(&asked, room);
        let directory = self.tree.directory(id)?;
        directory
            .list(asked.offset, |entry| {
                if !page.has_room(dirent_len(entry.name.as_bytes().len())) {
                    return Take::Enough;
                }
                page.push(entry);
                Take::Taken
            })
            .map_err(unlistable)?;
        Ok(Reply::Body(page.bytes))
    }

    pub(super) fn list_plus(
        &self,
        id: NodeId,
        request: &Request<'_>,
        room: usize,
    ) -> Result<Reply, Errno> {
        let asked: ReadIn = request.structure()?;
        let mut page = Page::new(&asked, room);
        let directory = self.tree.directory(id)?;
        directory
            .list(asked.offset, |entry| {
                let len = size_of::<EntryOut>() + dirent_len(entry.name.as_bytes().len());
                if !page.has_room(len) {
                    return Take::Enough;
                }
                // The guest gets a reference only with an entry that fits.
                let found = self.found(id, &directory, entry);
                page.bytes.extend_from_slice(found.as_bytes());
                page.push(entry);
                Take::Taken
            })
            .map_err(unlistable)?;
        Ok(Reply::Body(page.bytes))
    }

    /// What an entry leads to. The guest is to take no notice of one whose id is zero: of the dots,
    /// and of what has gone in the meantime or cannot be reached.
    fn found(&self, id: NodeId, directory: &Directory, entry: &Entry) -> EntryOut {
        let nothing = EntryOut::new_zeroed();
        if entry.is_dots() {
            return nothing;
        }
        let found =
            Name::new(&entry.name).and_then(|name| self.tree.lookup_in(id, directory, name));
        found.map_or(nothing, |(id, stat)| self.entry(id, &stat))
    }
}

/// A directory that may only be searched is open as a path, which cannot be listed.
fn unlistable(error: Errno) -> Errno {
    match error {
        Errno::BADF => Errno::ACCESS,
        error => error,
    }
}
