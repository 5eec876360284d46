//! The state of a session, to be saved and restored.
//!
//! What a guest holds are ids, and how many references to each. There are no handles: files are
//! opened by their path when they are read. So the state is the agreement of `Init`, the table of
//! inodes, by path, and what is mapped in the window, by those ids, as one length-checked postcard
//! message behind a magic number and a version.
//!
//! A restored inode is opened by its path like any other, and compared: what is not there any more,
//! or is something else, is `ESTALE` from then on. The number of the share's device may have
//! changed in between, as it does when a host boots; inodes of the same device as the root keep
//! being so.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Server;
use super::mapped::SavedMapping;
use super::session::Session;
use crate::abi::NAME_MAX;
use crate::inode::{Identity, Kind, Saved};

/// What a saved state begins with.
const MAGIC: [u8; 8] = *b"slotvmFS";
/// How the rest is to be read.
const VERSION: u32 = 2;

/// Longest state that is looked at, in bytes: more than [`crate::inode::MAX_NODES`] inodes with
/// usual names take.
pub const MAX_STATE: usize = 2 << 30;

/// Why a state cannot be saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It is no state.
    #[error("This is no saved state of a share: expected one that this program has written")]
    Foreign,
    /// It is of another version.
    #[error("The saved state of the share has version {found}: expected {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// It is damaged.
    #[error("The saved state of the share is damaged: take the snapshot again")]
    Damaged,
    /// It cannot be written down.
    #[error("The state of the share cannot be written down")]
    Encode(#[source] postcard::Error),
    /// The share cannot be looked at.
    #[error("Cannot look at the directory that is shared")]
    Share(#[source] Errno),
    /// The frontend does not map what was mapped.
    #[error("Cannot map in the window again what the guest had mapped")]
    Window(#[source] Errno),
}

/// Magic number and version.
pub(crate) fn state_header() -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_le_bytes()].concat()
}

#[derive(Debug, Serialize, Deserialize)]
struct StateV2 {
    session: Session,
    root: Identity,
    nodes: Vec<Saved>,
    mappings: Vec<SavedMapping>,
}

impl Server {
    /// The state of the session. Requests must not be served meanwhile.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn save(&self) -> Result<Vec<u8>, StateError> {
        let (root, nodes) = self.tree.save();
        let state = StateV2 {
            session: self.session(),
            root,
            nodes,
            mappings: self.saved_mappings(),
        };
        postcard::to_extend(&state, state_header()).map_err(StateError::Encode)
    }

    /// Goes on with a session that [`Self::save`] wrote down. Requests must not be served
    /// meanwhile. What was mapped is mapped again before this returns; in the place of a file that is
    /// not there any more, the guest finds zeroes.
    ///
    /// # Errors
    /// When it is not such a state, or its parts do not fit together: the session that there was
    /// then stays. When the frontend does not map: then this session is of no use.
    pub fn restore(&self, bytes: &[u8]) -> Result<(), StateError> {
        if bytes.len() > MAX_STATE {
            return Err(StateError::Damaged);
        }
        let rest = bytes.strip_prefix(&MAGIC).ok_or(StateError::Foreign)?;
        let (version, rest) = rest.split_first_chunk().ok_or(StateError::Damaged)?;
        let found = u32::from_le_bytes(*version);
        if found != VERSION {
            return Err(StateError::Version { found });
        }
        let (state, rest): (StateV2, _) =
            postcard::take_from_bytes(rest).map_err(|_| StateError::Damaged)?;
        if !rest.is_empty() {
            return Err(StateError::Damaged);
        }
        self.adopt(state)
    }

    /// Goes on with the inodes that an earlier backend gave to the guest before it died, as far as
    /// they fit together.
    pub(crate) fn recover(&self, mut nodes: Vec<Saved>) {
        nodes.retain(|node| is_name(&node.name));
        let count = nodes.len();
        match self.tree.restore(nodes) {
            Ok(()) => tracing::info!(count, "Went on where the last backend ended"),
            Err(error) => tracing::warn!(%error, "Cannot go on where the last backend ended"),
        }
    }

    fn adopt(&self, state: StateV2) -> Result<(), StateError> {
        let root = crate::share::Stat::of(self.tree.share().root()).map_err(StateError::Share)?;
        let device = root.identity().device;
        let mut nodes = state.nodes;
        for node in &mut nodes {
            if !is_name(&node.name) {
                return Err(StateError::Damaged);
            }
            if node.identity.device == state.root.device {
                node.identity.device = device;
            }
        }
        if state.root.kind != Kind::Directory
            || state.session.features & !self.wanted() != 0
            || !self.is_possible(&state.mappings)
        {
            return Err(StateError::Damaged);
        }
        self.tree.restore(nodes).map_err(|error| match error {
            Errno::INVAL => StateError::Damaged,
            error => StateError::Share(error),
        })?;
        self.set_session(state.session);
        self.map_again(&state.mappings)
    }
}

/// Whether bytes can be the name of a directory entry: see [`crate::share::Name`].
fn is_name(name: &[u8]) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && !matches!(name, b"." | b"..")
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_one_of_its_version() {
        let root = [2, 3, 8, 1];
        let node = [5, 6, 1, b'a', 7, 8, 9, 0, 10];
        let mapping = [11, 12, 13, 14];
        let bytes = [&[1], &root[..], &[1], &node, &[1], &mapping].concat();
        let state: StateV2 = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(state.session.features, 1);
        let of = |device, ino, born, kind| Identity {
            device,
            ino,
            born,
            kind,
        };
        assert_eq!(state.root, of(2, 3, 4, Kind::Directory));
        let known = Saved {
            id: 5,
            parent: 6,
            name: (*b"a").into(),
            identity: of(7, 8, -5, Kind::File),
            lookups: 10,
        };
        assert_eq!(state.nodes, [known]);
        // Another layout is another version: saved states of this one are still about.
        let again = postcard::to_stdvec(&state).unwrap();
        assert_eq!((VERSION, again), (2, bytes));
    }
}
