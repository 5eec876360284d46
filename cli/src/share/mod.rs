//! Backends of shared directories: how a slot gets at them.

mod child;
mod socket;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use devices::vhost_user::Connect;

use self::child::{Children, Served};
use self::socket::Listening;
use crate::resolve::{Backend, Share};

/// Why a share cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShareError {
    /// The directory is not one, or not ours to read.
    #[error("Share {tag}: {} cannot be shared", source_dir.display())]
    Source {
        /// The share.
        tag: String,
        /// Its directory.
        source_dir: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The backend's process was not started.
    #[error("Share {tag}: failed to start its backend")]
    Start {
        /// The share.
        tag: String,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Nobody listens.
    #[error(
        "Share {tag}: nobody answers at {}; start virtiofsd before the slot",
        socket.display()
    )]
    Socket {
        /// The share.
        tag: String,
        /// Where the backend should listen.
        socket: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// The arguments with which this program serves the share at its standard input to another monitor, or
/// nothing where somebody else serves it.
pub(crate) fn backend_arguments(share: &Share) -> Option<Vec<OsString>> {
    match &share.backend {
        Backend::BuiltIn {
            source,
            cache,
            poll,
            ..
        } => Some(child::plain(source, (*cache, *poll), share.queues)),
        Backend::External { .. } => None,
    }
}

/// Starts the share's backend, or connects to it. It gets ready while the machine is built.
/// Sockets are made in `place`.
pub(crate) fn open(share: &Share, place: &Path) -> Result<Box<dyn Connect>, ShareError> {
    let tag = || share.tag.clone();
    match &share.backend {
        Backend::BuiltIn {
            source,
            cache,
            dax_mib,
            poll,
        } => {
            std::fs::read_dir(source).map_err(|error| ShareError::Source {
                tag: tag(),
                source_dir: source.clone(),
                source: error,
            })?;
            let served = Served {
                tag: tag(),
                source: source.clone(),
                cache: *cache,
                dax_mib: *dax_mib,
                poll: *poll,
                queues: share.queues,
                place: place.to_owned(),
            };
            let children = Children::start(served)
                .map_err(|source| ShareError::Start { tag: tag(), source })?;
            Ok(Box::new(children))
        }
        Backend::External { socket } => {
            let listening = Listening::connect(socket).map_err(|source| ShareError::Socket {
                tag: tag(),
                socket: socket.clone(),
                source,
            })?;
            Ok(Box::new(listening))
        }
    }
}
