//! What tells one version of a file from another without reading it.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Identity of a file's content within its filesystem: a write changes at least one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    size: u64,
    inode: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Identity {
    /// The identity of an open file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            size: meta.size(),
            inode: meta.ino(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// Name of what a source file yields: a digest over the file's identity and how it is searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    /// Key of `file`, of which `head` are the first bytes; `search` tells apart different
    /// searches of the same file.
    pub(super) fn of(file: &File, head: &[u8], search: &str) -> io::Result<Self> {
        let identity = Identity::of(file)?;
        let mut hash = Sha256::new();
        hash.update(file.metadata()?.dev().to_le_bytes());
        for field in [identity.size, identity.inode] {
            hash.update(field.to_le_bytes());
        }
        for (seconds, nanoseconds) in [identity.mtime, identity.ctime] {
            hash.update(seconds.to_le_bytes());
            hash.update(nanoseconds.to_le_bytes());
        }
        hash.update(search.as_bytes());
        hash.update([0]);
        hash.update(head);
        Ok(Self(hex(&hash.finalize())))
    }

    /// The key as a file name.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// SHA-256 of `bytes`, in hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
