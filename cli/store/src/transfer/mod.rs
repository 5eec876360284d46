//! States on their way to another host: a stream for files and pipes.
//!
//! ```text
//! "slotvmSt" ─▶ zstd( header ─▶ data | zeroes … ─▶ end )
//! ```
//!
//! The header is JSON behind its length (u32). A record is its kind (u8), offset (u64) and length
//! (u64), for data then so many bytes, and the SHA-256 of all of that: what arrived is right even if
//! the rest never does. Records come in order of their offsets. The end's digest is that of every
//! record's digest. Numbers are little-endian. What no record mentions is a hole, or what the base
//! has there if the header names one.
//!
//! A stream is input that anybody may have written: every length is checked before it is used.

mod export;
#[cfg(any(test, feature = "test-utils"))]
pub mod fuzz;
mod import;
mod stream;

use std::io;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::export::Export;
pub use self::import::{Imported, Landing};
use crate::error::StoreError;
use crate::name::Name;
use crate::snapshot::Manifest;

/// What a stream says before its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the stream's format, 1.
    pub format: u32,
    /// Identity of the content.
    pub id: Uuid,
    /// The state that it is of.
    pub state: Name,
    /// Length of the image in bytes; nothing if there is none.
    pub bytes: Option<u64>,
    /// The snapshot's manifest, if it is of one.
    pub manifest: Option<Manifest>,
    /// Identity of the snapshot that the records change; nothing if they are everything.
    pub base: Option<Uuid>,
    /// The offset before which no record is sent, because the other side has it.
    pub from: u64,
}

/// Why a state was not exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stream cannot be read or written.
    #[error("Failed to {action} the stream")]
    Stream {
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The stream broke off, and what arrived is kept.
    #[error(
        "The stream ended after {at} bytes of the image, which are kept: export again with \
         `--from {at}` to go on"
    )]
    Interrupted {
        /// Where to go on.
        at: u64,
        /// Why it broke off.
        #[source]
        source: Box<TransferError>,
    },
    /// The stream is not one, or was changed on its way.
    #[error("The stream is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
    /// The stream begins where nothing arrived before.
    #[error(
        "The stream begins at byte {from} of the image, and {have} of this snapshot arrived before: \
         export with `--from {have}`"
    )]
    Gap {
        /// Where it begins.
        from: u64,
        /// What is there.
        have: u64,
    },
    /// The snapshot that a stream changes is not there.
    #[error(
        "State '{state}' has no snapshot with id {base}, which the stream changes: import that \
         first, or export without `--since`"
    )]
    NoBase {
        /// The state.
        state: Name,
        /// What is missing.
        base: Uuid,
    },
    /// An image without a fixed content cannot be sent in parts.
    #[error("State '{state}' can change between two exports: export a snapshot of it")]
    NotFixed {
        /// The state.
        state: Name,
    },
}

/// For `map_err`: names what failed.
fn stream(action: &'static str) -> impl Fn(io::Error) -> TransferError {
    move |source| TransferError::Stream { action, source }
}
