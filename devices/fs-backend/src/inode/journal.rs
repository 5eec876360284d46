//! What the guest knows, written down for the backend after this one.
//!
//! A backend can die at any moment, and a guest goes on with the ids it was given: it keeps names
//! for as long as it was told to, and does not ask again. So each id is appended to a file that
//! outlives the process before the guest learns of it. What the guest drops is not noted: ids that
//! nobody uses are kept until the session ends.
//!
//! The file is a sequence of records, each with its length in front. A record that a dying backend
//! left unfinished, and whatever follows, is cut off.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;

use serde::{Deserialize, Serialize};

use super::{Identity, NodeId, Saved};

/// Longest journal, in bytes; about a million and a half inodes. It lies in memory, and a guest
/// that forgets and asks again makes it grow: beyond this, a new backend knows nothing.
const MAX_JOURNAL: u64 = 128 << 20;

/// Longest record, in bytes: a name of 255 and numbers.
const MAX_RECORD: usize = 512;

/// Bytes of a record's length.
const PREFIX: usize = 4;

/// References that a guest may hold to an inode out of a journal: more than it ever drops.
const KEPT: u64 = 1 << 32;

#[derive(Debug, Serialize, Deserialize)]
enum Record {
    /// A session began: ids from before mean nothing.
    Begin,
    /// The guest is told of an inode.
    Known(Saved),
    /// The journal was too long to go on: it says nothing.
    Full,
}

/// A journal that is being written.
#[derive(Debug, Default)]
pub struct Journal {
    /// None when there is nobody to write for.
    file: Option<File>,
    written: u64,
}

impl Journal {
    /// Goes on with the journal in `file`. Returns the inodes that the guest knows according to it:
    /// not checked but for fitting together.
    ///
    /// # Errors
    /// When the file cannot be read or cut to its last whole record.
    pub fn open(mut file: File) -> io::Result<(Self, Vec<Saved>)> {
        let length = usize::try_from(file.metadata()?.len().min(MAX_JOURNAL)).unwrap_or(0);
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0)?;
        let mut known = Known::default();
        let mut whole = 0_u64;
        let mut rest = bytes.as_slice();
        while let Some((record, after)) = next(rest) {
            known.apply(record);
            whole = whole.saturating_add((rest.len() - after.len()) as u64);
            rest = after;
        }
        file.set_len(whole)?;
        file.seek(SeekFrom::Start(whole))?;
        let journal = Self {
            file: Some(file),
            written: whole,
        };
        Ok((journal, known.into_nodes()))
    }

    /// Notes that a session begins.
    pub fn begin(&mut self) {
        self.append(&Record::Begin);
    }

    /// Notes that the guest is about to learn of an inode.
    pub fn known(&mut self, node: Saved) {
        if self.written > MAX_JOURNAL - MAX_RECORD as u64 {
            self.append(&Record::Full);
            self.file = None;
        } else {
            self.append(&Record::Known(node));
        }
    }

    /// A journal that cannot be written is not worth a request: a later backend knows less.
    fn append(&mut self, record: &Record) {
        let Some(file) = &mut self.file else { return };
        let mut line = vec![0; PREFIX];
        let encoded = postcard::to_extend(record, std::mem::take(&mut line));
        let appended = encoded.map_err(io::Error::other).and_then(|mut line| {
            let length = u32::try_from(line.len().saturating_sub(PREFIX)).unwrap_or(u32::MAX);
            if let Some(prefix) = line.first_chunk_mut() {
                *prefix = length.to_le_bytes();
            }
            file.write_all(&line).map(|()| line.len() as u64)
        });
        match appended {
            Ok(bytes) => self.written = self.written.saturating_add(bytes),
            Err(error) => {
                tracing::warn!(%error, "Cannot write down what the guest knows");
                self.file = None;
            }
        }
    }
}

/// The first record of `bytes`, and what follows it.
fn next(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<PREFIX>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (record, rest) = rest.split_at_checked(length.min(MAX_RECORD))?;
    let (record, left) = postcard::take_from_bytes(record).ok()?;
    left.is_empty().then_some((record, rest))
}

/// What a journal comes to.
#[derive(Default)]
struct Known {
    nodes: HashMap<u32, Saved>,
    places: HashMap<Identity, u32>,
}

impl Known {
    fn apply(&mut self, record: Record) {
        match record {
            Record::Begin | Record::Full => *self = Self::default(),
            Record::Known(node) => {
                // Places and identities come back once the guest has dropped the old ones.
                let (place, _) = NodeId::from_raw(node.id).split();
                if let Some(old) = self.places.insert(node.identity, place) {
                    self.nodes.remove(&old);
                }
                if let Some(old) = self.nodes.insert(place, node)
                    && self.places.get(&old.identity) == Some(&place)
                    && self.nodes.get(&place).map(|node| node.identity) != Some(old.identity)
                {
                    self.places.remove(&old.identity);
                }
            }
        }
    }

    /// Those whose path leads to the root.
    fn into_nodes(self) -> Vec<Saved> {
        let mut nodes: Vec<Saved> = self.nodes.into_values().collect();
        loop {
            let ids: HashSet<u64> = nodes.iter().map(|node| node.id).collect();
            let before = nodes.len();
            let root = NodeId::ROOT.raw();
            nodes.retain(|node| node.parent == root || ids.contains(&node.parent));
            if nodes.len() == before {
                break;
            }
        }
        for node in &mut nodes {
            node.lookups = KEPT;
        }
        nodes
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use proptest::prelude::*;

    use super::*;
    use crate::inode::{Kind, Table};

    fn file() -> File {
        let fd: OwnedFd =
            rustix::fs::memfd_create("journal", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        File::from(fd)
    }

    fn identity(ino: u64) -> Identity {
        Identity {
            device: 1,
            ino,
            born: 0,
            kind: Kind::Directory,
        }
    }

    fn node(place: u32, generation: u32, ino: u64, parent: NodeId) -> Saved {
        Saved {
            id: NodeId::new(place, generation).raw(),
            parent: parent.raw(),
            name: format!("name{ino}").into_bytes().into(),
            identity: identity(ino),
            lookups: 1,
        }
    }

    fn reopened(file: &File) -> Vec<Saved> {
        let (_, mut nodes) = Journal::open(file.try_clone().unwrap()).unwrap();
        nodes.sort_by_key(|node| node.id);
        nodes
    }

    #[test]
    fn later_records_win_and_children_of_what_is_gone_go_as_well() {
        let file = file();
        let (mut journal, nothing) = Journal::open(file.try_clone().unwrap()).unwrap();
        assert!(nothing.is_empty());
        let first = node(1, 7, 100, NodeId::ROOT);
        journal.known(first.clone());
        journal.known(node(2, 8, 101, NodeId::from_raw(first.id)));
        // Place 1 again for something else; then its inode at another place.
        let other = node(1, 9, 102, NodeId::ROOT);
        journal.known(other.clone());
        let moved = node(3, 10, 102, NodeId::ROOT);
        journal.known(moved.clone());
        let nodes = reopened(&file);
        assert_eq!(
            nodes.iter().map(|node| node.id).collect::<Vec<_>>(),
            [moved.id]
        );
        assert!(Table::restore(identity(1), 1, nodes).is_ok());
    }

    #[test]
    fn a_session_that_begins_forgets_the_one_before() {
        let file = file();
        let (mut journal, _) = Journal::open(file.try_clone().unwrap()).unwrap();
        journal.known(node(1, 7, 100, NodeId::ROOT));
        journal.begin();
        let second = node(2, 8, 101, NodeId::ROOT);
        journal.known(second.clone());
        assert_eq!(reopened(&file).first().map(|node| node.id), Some(second.id));
    }

    #[test]
    fn unfinished_record_is_cut_off_and_the_next_backend_goes_on() {
        let file = file();
        let (mut journal, _) = Journal::open(file.try_clone().unwrap()).unwrap();
        journal.known(node(1, 7, 100, NodeId::ROOT));
        (&file).write_all(&[200, 0, 0, 0, 1, 2, 3]).unwrap();
        let (mut journal, nodes) = Journal::open(file.try_clone().unwrap()).unwrap();
        assert_eq!(nodes.len(), 1);
        journal.known(node(2, 8, 101, NodeId::ROOT));
        assert_eq!(reopened(&file).len(), 2);
    }

    #[test]
    fn journal_that_grows_too_long_says_nothing() {
        let file = file();
        let mut journal = Journal {
            file: Some(file.try_clone().unwrap()),
            written: MAX_JOURNAL,
        };
        journal.known(node(1, 7, 100, NodeId::ROOT));
        assert!(journal.file.is_none());
        assert!(reopened(&file).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let file = file();
            (&file).write_all(&bytes).unwrap();
            let nodes = reopened(&file);
            let _ = Table::restore(identity(1), 1, nodes);
        }

        #[test]
        fn any_records_make_a_table(records in prop::collection::vec((1u32..6, 1u32..9, 10u64..16, 0usize..4), 0..40)) {
            let file = file();
            let (mut journal, _) = Journal::open(file.try_clone().unwrap()).unwrap();
            let mut ids = vec![NodeId::ROOT];
            for (place, generation, ino, parent) in records {
                let parent = ids.get(parent % ids.len()).copied().unwrap_or(NodeId::ROOT);
                let node = node(place, generation, ino, parent);
                ids.push(NodeId::from_raw(node.id));
                journal.known(node);
            }
            let nodes = reopened(&file);
            // A loop of parents is no tree, and no table either: it only must not hang.
            let _ = Table::restore(identity(1), 1, nodes);
        }
    }
}
