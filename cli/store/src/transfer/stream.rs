//! Records, and how they are written and read.

use std::io::{Read, Write};

use sha2::{Digest as _, Sha256};

use super::{Header, TransferError, stream};

/// Begins every stream.
pub(super) const MAGIC: &[u8; 8] = b"slotvmSt";
/// The version that is written and read.
pub(super) const FORMAT: u32 = 1;
/// Most bytes of a header.
const MAX_HEADER: u32 = 64 << 10;
/// Most bytes of data in a record.
pub(super) const MAX_DATA: usize = 256 << 10;
/// Largest window that a stream may ask for: 128 MiB, what zstd uses without being told to use more.
const MAX_WINDOW: u32 = 27;

const END: u8 = 0;
const DATA: u8 = 1;
const ZEROES: u8 = 2;

/// What a stream says of a part of the image.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// These bytes are at this offset.
    Data(u64, &'a [u8]),
    /// So many zeroes are at this offset.
    Zeroes(u64, u64),
    /// That was all.
    End,
}

/// Writes a stream.
pub(super) struct Writer<W: Write> {
    to: zstd::Encoder<'static, W>,
    all: Sha256,
}

impl<W: Write> Writer<W> {
    pub(super) fn begin(mut to: W, header: &Header) -> Result<Self, TransferError> {
        let failed = stream("write");
        to.write_all(MAGIC).map_err(&failed)?;
        let mut to = zstd::Encoder::new(to, zstd::DEFAULT_COMPRESSION_LEVEL).map_err(&failed)?;
        let text = serde_json::to_vec(header).map_err(|error| failed(error.into()))?;
        let too_long = |_| TransferError::Damaged {
            what: "its header is too long",
        };
        let length = u32::try_from(text.len()).map_err(too_long)?;
        to.write_all(&length.to_le_bytes()).map_err(&failed)?;
        to.write_all(&text).map_err(&failed)?;
        let all = Sha256::new_with_prefix(&text);
        Ok(Self { to, all })
    }

    pub(super) fn write(&mut self, record: &Record<'_>) -> Result<(), TransferError> {
        let (kind, at, length, data) = match record {
            Record::Data(at, data) => (DATA, *at, data.len() as u64, *data),
            Record::Zeroes(at, length) => (ZEROES, *at, *length, &[][..]),
            Record::End => (END, 0, 0, &[][..]),
        };
        let head = head(kind, at, length);
        let digest = self.digest(&head, data);
        let mut write = |bytes: &[u8]| self.to.write_all(bytes).map_err(stream("write"));
        write(&head)?;
        write(data)?;
        write(&digest)
    }

    fn digest(&mut self, head: &[u8], data: &[u8]) -> [u8; 32] {
        next_digest(&mut self.all, head, data)
    }

    /// Writes the end, and what is still held back.
    pub(super) fn finish(mut self) -> Result<W, TransferError> {
        self.write(&Record::End)?;
        let mut to = self.to.finish().map_err(stream("write"))?;
        to.flush().map_err(stream("write"))?;
        Ok(to)
    }
}

pub(super) fn head(kind: u8, at: u64, length: u64) -> [u8; 17] {
    let mut head = [kind; 17];
    let (_, numbers) = head.split_at_mut(1);
    let (first, second) = numbers.split_at_mut(8);
    first.copy_from_slice(&at.to_le_bytes());
    second.copy_from_slice(&length.to_le_bytes());
    head
}

/// The digest of a record. The end's is that of all records, since it has no content.
pub(super) fn next_digest(all: &mut Sha256, head: &[u8], data: &[u8]) -> [u8; 32] {
    if head.first() == Some(&END) {
        return all.clone().finalize().into();
    }
    let digest: [u8; 32] = Sha256::new_with_prefix(head)
        .chain_update(data)
        .finalize()
        .into();
    all.update(digest);
    digest
}

/// Reads a stream.
pub(super) struct Reader<R: Read> {
    from: zstd::Decoder<'static, std::io::BufReader<R>>,
    all: Sha256,
    buffer: Vec<u8>,
    /// Offset before which no record may begin.
    at: u64,
    bytes: u64,
}

impl<R: Read> Reader<R> {
    pub(super) fn begin(mut from: R) -> Result<(Self, Header), TransferError> {
        let failed = stream("read");
        let damaged = |what| TransferError::Damaged { what };
        let mut magic = [0; 8];
        from.read_exact(&mut magic).map_err(&failed)?;
        if magic != *MAGIC {
            return Err(damaged("it does not begin like an exported state"));
        }
        let mut from = zstd::Decoder::new(from).map_err(&failed)?;
        from.window_log_max(MAX_WINDOW).map_err(&failed)?;
        let mut length = [0; 4];
        from.read_exact(&mut length).map_err(&failed)?;
        let length = u32::from_le_bytes(length);
        if length > MAX_HEADER {
            return Err(damaged("its header is too long"));
        }
        let mut text = vec![0; length as usize];
        from.read_exact(&mut text).map_err(&failed)?;
        let header: Header =
            serde_json::from_slice(&text).map_err(|_| damaged("its header cannot be read"))?;
        if header.format != FORMAT {
            return Err(damaged("it has another format: update slotvmm"));
        }
        let reader = Self {
            from,
            all: Sha256::new_with_prefix(&text),
            buffer: Vec::new(),
            at: header.from,
            bytes: header.bytes.unwrap_or_default(),
        };
        Ok((reader, header))
    }

    /// The next record; its digest was right.
    pub(super) fn next(&mut self) -> Result<Record<'_>, TransferError> {
        let failed = stream("read");
        let damaged = |what| TransferError::Damaged { what };
        let mut head = [0; 17];
        self.from.read_exact(&mut head).map_err(&failed)?;
        let [kind, numbers @ ..] = head;
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0, |n, byte| n << 8 | u64::from(*byte))
        };
        let (at, length) = numbers.split_at(8);
        let (at, length) = (number(at), number(length));
        let end = at.checked_add(length).filter(|end| *end <= self.bytes);
        let end = end.ok_or_else(|| damaged("a record lies outside of the image"))?;
        if kind != END && at < self.at {
            return Err(damaged("its records are out of order"));
        }
        let data = match kind {
            DATA if length <= MAX_DATA as u64 => usize::try_from(length).unwrap_or(MAX_DATA),
            ZEROES | END => 0,
            _ => return Err(damaged("a record is of no known kind or too long")),
        };
        self.buffer.resize(data, 0);
        self.from.read_exact(&mut self.buffer).map_err(&failed)?;
        let mut digest = [0; 32];
        self.from.read_exact(&mut digest).map_err(&failed)?;
        if digest != next_digest(&mut self.all, &head, &self.buffer) {
            return Err(damaged("a digest is wrong"));
        }
        self.at = self.at.max(end);
        Ok(match kind {
            DATA => Record::Data(at, &self.buffer),
            ZEROES => Record::Zeroes(at, length),
            _ => Record::End,
        })
    }
}
