//! Beginning and end of a session, and what opening means in it.

use std::sync::PoisonError;

use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{Cache, Reply, Request, Server};
use crate::abi::init::{self, InitIn, InitOut};
use crate::abi::requests::{FOPEN_CACHE_DIR, FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE, OpenIn, OpenOut};

/// Longest request, in pages of 4 KiB: [`super::MAX_READ`].
const MAX_PAGES: u16 = 256;

/// Requests that may wait in the background, reads ahead for the most part.
const MAX_BACKGROUND: u16 = 128;

/// Alignment of mappings, as a power of two: [`super::MAPPING_BYTES`].
const MAP_ALIGNMENT: u16 = 21;
const _: () = assert!(1 << MAP_ALIGNMENT == super::MAPPING_BYTES);

/// What was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Session {
    /// Bits of both.
    pub(super) features: u64,
}

/// What a request wants to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// A file.
    File,
    /// A directory.
    Directory,
}

impl Server {
    pub(super) fn session(&self) -> Session {
        *self.session.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_session(&self, session: Session) {
        *self.session.write().unwrap_or_else(PoisonError::into_inner) = session;
    }

    /// Begins a session. Nothing of an earlier one is left.
    pub(super) fn init(&self, request: &Request<'_>, room: usize) -> Result<Reply, Errno> {
        let asked = InitIn::parse(request.body).ok_or(Errno::INVAL)?;
        if asked.major < init::MAJOR
            || (asked.major == init::MAJOR && asked.minor < init::MIN_MINOR)
        {
            return Err(Errno::PROTO);
        }
        self.tree.clear()?;
        self.clear_window()?;
        // A driver that is newer by a whole version asks again with ours.
        let features = if asked.major == init::MAJOR {
            asked.features() & self.wanted()
        } else {
            0
        };
        self.set_session(Session { features });
        let [a, b, c, d, e, f, g, h] = features.to_be_bytes();
        let reply = InitOut {
            major: init::MAJOR,
            minor: init::MINOR,
            max_readahead: u32::MAX,
            flags: u32::from_be_bytes([e, f, g, h]),
            max_background: MAX_BACKGROUND,
            congestion_threshold: MAX_BACKGROUND / 4 * 3,
            // Nothing is written; drivers that read this as the longest request take it for one.
            max_write: u32::from(MAX_PAGES) * 4096,
            time_gran: 1,
            max_pages: MAX_PAGES,
            map_alignment: MAP_ALIGNMENT,
            flags2: u32::from_be_bytes([a, b, c, d]),
            max_stack_depth: 0,
            request_timeout: 0,
            unused: [0; 11],
        };
        Reply::structure(&reply, room)
    }

    /// Features that suit.
    pub(super) fn wanted(&self) -> u64 {
        let always = init::ASYNC_READ
            | init::AUTO_INVAL_DATA
            | init::DO_READDIRPLUS
            | init::READDIRPLUS_AUTO
            | init::ASYNC_DIO
            | init::PARALLEL_DIROPS
            | init::MAX_PAGES
            | init::INIT_EXT;
        let always = always | self.mapping_features();
        match self.policy.cache {
            Cache::Always => {
                always | init::CACHE_SYMLINKS | init::NO_OPEN_SUPPORT | init::NO_OPENDIR_SUPPORT
            }
            Cache::Auto => always,
            Cache::Never => always | init::DIRECT_IO_ALLOW_MMAP,
        }
    }

    /// Opens. There are no handles: what is read is opened by its path when it is read, and kept
    /// open as long as it is in use. Where the guest keeps everything anyway it is told that it
    /// need not ask, which saves two messages for each file and each directory.
    pub(super) fn open(
        &self,
        what: What,
        request: &Request<'_>,
        room: usize,
    ) -> Result<Reply, Errno> {
        let asked: OpenIn = request.structure()?;
        let flags = OFlags::from_bits_retain(asked.flags);
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
        if what == What::File && writes {
            return Err(Errno::ROFS);
        }
        let saves = match what {
            What::File => init::NO_OPEN_SUPPORT,
            What::Directory => init::NO_OPENDIR_SUPPORT,
        };
        if self.session().features & saves != 0 {
            return Err(Errno::NOSYS);
        }
        let open_flags = match (self.policy.cache, what) {
            (Cache::Always, What::File) => FOPEN_KEEP_CACHE,
            (Cache::Always, What::Directory) => FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR,
            (Cache::Never, What::File) => FOPEN_DIRECT_IO,
            (Cache::Auto, _) | (Cache::Never, What::Directory) => 0,
        };
        let reply = OpenOut {
            fh: 0,
            open_flags,
            backing_id: 0,
        };
        Reply::structure(&reply, room)
    }
}
