//! Requests as they arrive, replies as they leave.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::abi::{IN_HEADER_LEN, InHeader};

/// Longest body that is looked at, in bytes: names need less, and a batch of more than four
/// thousand forgets does not fit a queue. What a guest sends beyond is not read.
pub const MAX_BODY: usize = 64 * 1024;

/// Longest reply, in bytes: 256 pages, as negotiated. A guest that asks for more gets this much.
pub const MAX_READ: usize = 1024 * 1024;

/// A request: its header, and its body as far as it is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The header.
    pub header: InHeader,
    /// What follows it.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// From the bytes of a message. The header's length has to fit: no longer than what there is,
    /// no shorter than a header. None for what is no message.
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        let (header, body) = InHeader::read_from_prefix(message).ok()?;
        let len = usize::try_from(header.len)
            .ok()?
            .checked_sub(IN_HEADER_LEN)?;
        let body = body.get(..len.min(MAX_BODY))?;
        Some(Self { header, body })
    }

    /// The structure that the body is, or begins with.
    pub(super) fn structure<T>(&self) -> Result<T, Errno>
    where
        T: FromBytes + KnownLayout + Immutable,
    {
        self.split().map(|(structure, _)| structure)
    }

    /// The structure that the body begins with, and the rest.
    pub(super) fn split<T>(&self) -> Result<(T, &'a [u8]), Errno>
    where
        T: FromBytes + KnownLayout + Immutable,
    {
        T::read_from_prefix(self.body).map_err(|_| Errno::INVAL)
    }
}

/// The reply to a request.
#[derive(Debug)]
pub enum Reply {
    /// There is none.
    None,
    /// It failed.
    Error(Errno),
    /// What follows the header.
    Body(Vec<u8>),
    /// What follows the header is to be read from `file`, straight to where it belongs.
    Data {
        /// An open regular file.
        file: Arc<OwnedFd>,
        /// Where to begin, in bytes.
        offset: u64,
        /// How much at most, in bytes; no more than there is room for.
        len: usize,
    },
}

impl Reply {
    /// A structure as the whole reply.
    pub(super) fn structure<T>(structure: &T, room: usize) -> Result<Self, Errno>
    where
        T: IntoBytes + Immutable,
    {
        Self::body(structure.as_bytes().to_vec(), room)
    }

    /// Bytes as the whole reply.
    pub(super) fn body(body: Vec<u8>, room: usize) -> Result<Self, Errno> {
        if body.len() > room {
            return Err(Errno::INVAL);
        }
        Ok(Self::Body(body))
    }

    /// Success, of which there is nothing to say.
    pub(super) const fn done() -> Self {
        Self::Body(Vec::new())
    }
}
