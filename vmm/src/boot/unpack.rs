//! Takes the ELF kernel out of a bzImage, so that no boot pays for it in the guest.

use std::io::Read;

use liblzma::read::XzDecoder;
use liblzma::stream::Stream;

use super::blob::Blob;
use super::bzimage::{PREFIX, Setup};
use super::elf::Plan;

/// Largest unpacked kernel, in bytes. A distribution kernel has 30 to 80 MiB; the limit stops a
/// small file from claiming all memory of the host.
const MAX_UNPACKED: u64 = 1 << 30;
/// Largest dictionary an xz payload may ask for, in bytes; kernels use 32 MiB.
const XZ_MEMORY: u64 = 256 << 20;
/// Bytes a block of the legacy lz4 format unpacks to, at most.
const LZ4_BLOCK: usize = 8 << 20;
/// Magic of the legacy lz4 format.
const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// The shortest thing that could be a kernel: an ELF header.
const MIN_UNPACKED: u64 = 64;

/// Why the kernel inside a bzImage could not be had; the bzImage itself may still boot.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// There is no setup header with a 64-bit entry.
    #[error("Not a bzImage with a 64-bit entry")]
    NotBzImage,
    /// The header's payload lies outside the file.
    #[error("Payload of {length} bytes at offset {offset} lies outside the file of {file} bytes")]
    OutsideFile {
        /// Where the payload starts.
        offset: u64,
        /// Its length.
        length: u64,
        /// Length of the file.
        file: u64,
    },
    /// The payload is packed with something not supported.
    #[error("Payload is packed with {found}, expected gzip, xz, zstd or lz4")]
    Compression {
        /// Name of the method or the first bytes.
        found: String,
    },
    /// The size noted after the payload cannot be right.
    #[error("Payload claims to unpack to {claimed} bytes, expected 64 bytes to 1 GiB")]
    Size {
        /// The noted size.
        claimed: u64,
    },
    /// The payload does not unpack.
    #[error("{method} payload does not unpack")]
    Corrupt {
        /// The compression method.
        method: &'static str,
        /// What the decoder said.
        #[source]
        source: std::io::Error,
    },
    /// The payload unpacks to something else than a kernel.
    #[error("Payload unpacks to {length} bytes that are no x86-64 ELF kernel")]
    NotElf {
        /// Bytes unpacked.
        length: u64,
    },
}

/// Unpacks the ELF kernel out of a bzImage. The result is a checked x86-64 ELF file; relocations
/// that the kernel appends follow it.
///
/// Methods: gzip, xz, zstd and the legacy lz4 format. Kernels packed with bzip2, lzma or lzo have
/// to be booted as they are.
pub fn unpack_kernel(bzimage: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let prefix = bzimage.get(..PREFIX.min(bzimage.len())).unwrap_or(bzimage);
    let setup = Setup::parse(prefix).map_err(|_| UnpackError::NotBzImage)?;
    let payload = payload(bzimage, &setup)?;
    let (method, size) = method_and_size(payload)?;
    let unpacked = method.unpack(payload, size)?;
    let length = unpacked.len() as u64;
    let blob = Blob::Memory(unpacked);
    Plan::read(&blob).map_err(|_| UnpackError::NotElf { length })?;
    match blob {
        Blob::Memory(bytes) => Ok(bytes),
        Blob::File { .. } => Err(UnpackError::NotElf { length }),
    }
}

fn payload<'a>(bzimage: &'a [u8], setup: &Setup) -> Result<&'a [u8], UnpackError> {
    let (offset, length) = setup.payload();
    let start = usize::try_from(offset).ok();
    let end = usize::try_from(offset.saturating_add(length)).ok();
    start
        .zip(end)
        .and_then(|(start, end)| bzimage.get(start..end))
        .ok_or(UnpackError::OutsideFile {
            offset,
            length,
            file: bzimage.len() as u64,
        })
}

#[derive(Debug, Clone, Copy)]
enum Method {
    Gzip,
    Xz,
    Zstd,
    Lz4,
}

/// Detects the method, and reads the unpacked size from the payload's last four bytes. (For gzip
/// they belong to the format itself, the kernel build appends them for the others.)
fn method_and_size(payload: &[u8]) -> Result<(Method, usize), UnpackError> {
    let method = match payload {
        [0x1f, 0x8b, ..] => Method::Gzip,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Method::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Method::Zstd,
        [a, b, c, d, ..] if [*a, *b, *c, *d] == LZ4_MAGIC => Method::Lz4,
        other => return Err(unsupported(other)),
    };
    let claimed = payload
        .last_chunk::<4>()
        .map_or(0, |size| u64::from(u32::from_le_bytes(*size)));
    if !(MIN_UNPACKED..=MAX_UNPACKED).contains(&claimed) {
        return Err(UnpackError::Size { claimed });
    }
    let size = usize::try_from(claimed).map_err(|_| UnpackError::Size { claimed })?;
    Ok((method, size))
}

fn unsupported(payload: &[u8]) -> UnpackError {
    let found = match payload {
        [b'B', b'Z', b'h', ..] => "bzip2".to_owned(),
        [0x5d, 0, 0, ..] => "lzma".to_owned(),
        [0x89, b'L', b'Z', b'O', ..] => "lzo".to_owned(),
        [0x7f, b'E', b'L', b'F', ..] => "nothing".to_owned(),
        other => format!(
            "an unknown method ({:02x?}…)",
            other.get(..4).unwrap_or(other)
        ),
    };
    UnpackError::Compression { found }
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }

    /// Unpacks to exactly `size` bytes.
    fn unpack(self, payload: &[u8], size: usize) -> Result<Vec<u8>, UnpackError> {
        let body = payload.split_last_chunk::<4>().map_or(payload, |(b, _)| b);
        let unpacked = match self {
            Self::Gzip => read_all(flate2::read::GzDecoder::new(payload), size),
            Self::Xz => Stream::new_stream_decoder(XZ_MEMORY, 0)
                .map_err(std::io::Error::from)
                .and_then(|stream| read_all(XzDecoder::new_stream(body, stream), size)),
            Self::Zstd => zstd::stream::read::Decoder::with_buffer(body)
                .and_then(|decoder| read_all(decoder.single_frame(), size)),
            Self::Lz4 => unpack_lz4(body, size),
        };
        unpacked.map_err(|source| UnpackError::Corrupt {
            method: self.name(),
            source,
        })
    }
}

fn read_all(mut decoder: impl Read, size: usize) -> std::io::Result<Vec<u8>> {
    // The allocation is lazily zeroed, so a false claim costs only what really unpacks.
    let mut out = vec![0; size];
    decoder.read_exact(&mut out)?;
    match decoder.read(&mut [0])? {
        0 => Ok(out),
        _ => Err(invalid("it unpacks to more than it claims")),
    }
}

/// The legacy format: after the magic, blocks of `u32 length` and that many packed bytes.
fn unpack_lz4(body: &[u8], size: usize) -> std::io::Result<Vec<u8>> {
    let mut out = vec![0; size];
    let mut rest = body;
    let mut filled = 0usize;
    while let Some((word, after)) = rest.split_first_chunk::<4>() {
        rest = after;
        if *word == LZ4_MAGIC {
            continue;
        }
        let length = usize::try_from(u32::from_le_bytes(*word)).unwrap_or(usize::MAX);
        let (block, after) = rest
            .split_at_checked(length)
            .ok_or_else(|| invalid("it ends inside a block"))?;
        rest = after;
        let end = filled.saturating_add(LZ4_BLOCK).min(size);
        let room = out
            .get_mut(filled..end)
            .ok_or_else(|| invalid("it unpacks to more than it claims"))?;
        let written =
            lz4_flex::block::decompress_into(block, room).map_err(std::io::Error::other)?;
        filled = filled.saturating_add(written);
    }
    match filled == size {
        true => Ok(out),
        false => Err(invalid("it unpacks to less than it claims")),
    }
}

fn invalid(reason: &'static str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, reason)
}
