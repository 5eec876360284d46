//! One descriptor chain: a request in what the device may read, room for its reply in the rest.

use std::os::fd::AsFd as _;

use smallvec::SmallVec;
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes as _, GuestMemory as _, Permissions, VolatileSlice};
use zerocopy::IntoBytes as _;

use super::near::Near;
use crate::abi::{IN_HEADER_LEN, OUT_HEADER_LEN, OutHeader};
use crate::server::{MAX_BODY, Reply, Request, Server};
use crate::sys;

/// Buffers of what Linux reads ahead at once, 128 KiB, and of the reply's header; few replies have more.
const BUFFERS: usize = 40;

/// Room for a reply.
type Buffers<'a> = SmallVec<[VolatileSlice<'a>; BUFFERS]>;

/// A chain as the queue gives it.
pub(super) type Chain<'a> = DescriptorChain<&'a Near<'a>>;

/// Why a chain cannot be used: a descriptor points outside of memory.
#[derive(Debug, thiserror::Error)]
#[error("A descriptor does not lie in guest memory")]
pub(super) struct ChainError(#[source] vm_memory::GuestMemoryError);

/// Serves the request in `chain`, which is copied to `message`; returns how many bytes were written.
///
/// A chain without a request, or without room for a reply, is given back empty.
pub(super) fn serve(
    server: &Server,
    chain: &Chain<'_>,
    message: &mut Vec<u8>,
) -> Result<u32, ChainError> {
    let mut buffers = Buffers::new();
    split(chain, message, &mut buffers)?;
    let Some(request) = Request::parse(message) else {
        return Ok(0);
    };
    let room: usize = buffers.iter().map(VolatileSlice::len).sum();
    let reply = server.answer(&request, room.saturating_sub(OUT_HEADER_LEN));
    if room < OUT_HEADER_LEN {
        return Ok(0);
    }
    Ok(write(&buffers, request.header.unique, &reply))
}

/// Copies the request, as far as it is looked at; returns room for its reply. Each descriptor is loaded once.
fn split<'a>(
    chain: &'a Chain<'_>,
    message: &mut Vec<u8>,
    buffers: &mut Buffers<'a>,
) -> Result<(), ChainError> {
    let memory = chain.memory();
    message.clear();
    for descriptor in chain.clone() {
        let len = descriptor.len() as usize;
        let address = descriptor.addr();
        if descriptor.is_write_only() {
            let slices = memory.get_slices(address, len, Permissions::Write);
            for slice in slices.map_err(ChainError)? {
                buffers.push(slice.map_err(ChainError)?);
            }
            continue;
        }
        let begin = message.len();
        let len = len.min((IN_HEADER_LEN + MAX_BODY).saturating_sub(begin));
        message.resize(begin.saturating_add(len), 0);
        let part = message.get_mut(begin..).unwrap_or_default();
        memory.read_slice(part, address).map_err(ChainError)?;
    }
    Ok(())
}

/// Writes a reply to where there is room for at least its header; returns its length.
fn write(buffers: &[VolatileSlice<'_>], unique: u64, reply: &Reply) -> u32 {
    let (error, len) = match reply {
        Reply::None => return 0,
        Reply::Error(error) => (error.raw_os_error(), 0),
        Reply::Body(body) => (0, put(buffers, OUT_HEADER_LEN, body)),
        Reply::Data { file, offset, len } => {
            let to = part(buffers, OUT_HEADER_LEN, *len);
            match sys::read_at(file.as_fd(), to, *offset) {
                Ok(len) => (0, len),
                Err(error) => (error.raw_os_error().unwrap_or(libc::EIO), 0),
            }
        }
    };
    // A reply is at most a megabyte.
    let len = u32::try_from(OUT_HEADER_LEN.saturating_add(len)).unwrap_or(0);
    let header = OutHeader {
        len,
        error: error.saturating_neg(),
        unique,
    };
    put(buffers, 0, header.as_bytes());
    len
}

/// Copies `bytes` to `offset` in the buffers, as far as there is room; returns how many.
fn put(buffers: &[VolatileSlice<'_>], offset: usize, bytes: &[u8]) -> usize {
    let mut rest = bytes;
    for slice in part(buffers, offset, bytes.len()) {
        let (now, later) = rest.split_at(slice.len().min(rest.len()));
        slice.copy_from(now);
        rest = later;
    }
    bytes.len() - rest.len()
}

/// `len` bytes at `offset` of the buffers, as far as there are that many.
fn part<'a>(
    buffers: &[VolatileSlice<'a>],
    offset: usize,
    len: usize,
) -> impl Iterator<Item = VolatileSlice<'a>> + Clone {
    let (mut skip, mut left) = (offset, len);
    buffers.iter().filter_map(move |slice| {
        let begin = skip.min(slice.len());
        skip -= begin;
        let len = left.min(slice.len() - begin);
        left -= len;
        let part = (len > 0).then(|| slice.subslice(begin, len).ok());
        part.flatten()
    })
}
