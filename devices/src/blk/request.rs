//! From a descriptor chain to a command (virtio 1.2 §5.2.6). Framing is the driver's choice: the
//! header may be split or share a descriptor with data, the status byte may end a data buffer.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use virtio_queue::DescriptorChain;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError};

use crate::device::Memory;
use crate::disk::{Extent, ExtentAction, SECTOR_BYTES, Segment};
use crate::fault::QueueFault;

/// Bytes of `virtio_blk_req` before the data: type, reserved, sector.
const HEADER_BYTES: usize = 16;
/// Bytes of one `virtio_blk_discard_write_zeroes`.
const RANGE_BYTES: usize = 16;
/// Ranges that one DISCARD or WRITE_ZEROES may carry; stops a guest from making us copy megabytes.
pub(super) const MAX_RANGES: u32 = 32;
/// Sectors that one range may cover: 1 GiB, so that a backing without holes is not busy for ever.
pub(super) const MAX_RANGE_SECTORS: u32 = 1 << 21;
/// Descriptors that one chain may have; stops an indirect table of 65535 from costing that much.
/// Above any `seg_max` offered.
const MAX_DESCRIPTORS: usize = 1024;
/// Bytes that GET_ID answers.
pub(super) const ID_BYTES: usize = VIRTIO_BLK_ID_BYTES as usize;

/// The status byte that ends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    IoError,
    Unsupported,
}

impl Status {
    pub(super) fn byte(self) -> u8 {
        let value = match self {
            Self::Ok => VIRTIO_BLK_S_OK,
            Self::IoError => VIRTIO_BLK_S_IOERR,
            Self::Unsupported => VIRTIO_BLK_S_UNSUPP,
        };
        value.to_le_bytes()[0]
    }
}

/// What requests are held against.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Size of the disk in bytes.
    pub(super) capacity: u64,
    /// Whether the guest may change the disk.
    pub(super) writable: bool,
    /// Whether DISCARD and WRITE_ZEROES are offered.
    pub(super) discard: bool,
}

/// What a request asks for, once checked. Data buffers and extents are in the [`Layout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Fill the writable buffers from this byte of the disk.
    Read { offset: u64, len: u32 },
    /// Write the readable buffers from this byte of the disk.
    Write { offset: u64 },
    /// Make earlier writes durable.
    Flush,
    /// Tell the serial number.
    GetId,
    /// Discard or zero the extents.
    Clear,
    /// Nothing but this status.
    Refuse(Status),
}

/// The buffers of one chain. Reused from request to request, so that none allocates.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Device-readable buffers; after [`Layout::parse`] the data only.
    pub(super) readable: Vec<Segment>,
    /// Device-writable buffers; after [`Layout::parse`] the data only.
    pub(super) writable: Vec<Segment>,
    /// The ranges of a [`Command::Clear`].
    pub(super) extents: Vec<Extent>,
}

/// A chain read: where its status goes, and what it wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parsed {
    pub(super) status: GuestAddress,
    pub(super) command: Command,
}

impl Layout {
    /// Reads a chain of queue `queue`. The header is copied once, so the driver cannot change it
    /// between check and use.
    ///
    /// # Errors
    /// When the chain is broken, has no header or no status byte, or those are not in guest memory.
    pub(super) fn parse(
        &mut self,
        queue: u16,
        memory: &Memory,
        chain: DescriptorChain<&Memory>,
        limits: &Limits,
    ) -> Result<Parsed, QueueFault> {
        self.gather(queue, chain)?;
        let header: [u8; HEADER_BYTES] = self.take_front(queue, memory)?;
        let status = self.take_status(queue, memory)?;
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        let command = match u32::from_le_bytes([t0, t1, t2, t3]) {
            VIRTIO_BLK_T_IN => match data_range(sector, &self.writable, limits) {
                Some((offset, len)) => Command::Read { offset, len },
                None => Command::Refuse(Status::IoError),
            },
            VIRTIO_BLK_T_OUT if !limits.writable => Command::Refuse(Status::IoError),
            VIRTIO_BLK_T_OUT => match data_range(sector, &self.readable, limits) {
                Some((offset, _)) => Command::Write { offset },
                None => Command::Refuse(Status::IoError),
            },
            VIRTIO_BLK_T_FLUSH => Command::Flush,
            VIRTIO_BLK_T_GET_ID if total(&self.writable) < u64::from(VIRTIO_BLK_ID_BYTES) => {
                Command::Refuse(Status::IoError)
            }
            VIRTIO_BLK_T_GET_ID => Command::GetId,
            kind @ (VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES) => {
                self.parse_ranges(queue, memory, kind, limits)?
            }
            _ => Command::Refuse(Status::Unsupported),
        };
        Ok(Parsed { status, command })
    }

    /// Sorts the chain's descriptors into readable and writable ones.
    fn gather(&mut self, queue: u16, chain: DescriptorChain<&Memory>) -> Result<(), QueueFault> {
        self.readable.clear();
        self.writable.clear();
        self.extents.clear();
        let malformed = |reason| QueueFault::Malformed { queue, reason };
        // The iterator ends early on a descriptor it cannot follow; the flag of the last one it
        // gave then still says that there is a next.
        let mut incomplete = true;
        for (count, descriptor) in chain.enumerate() {
            if count >= MAX_DESCRIPTORS {
                return Err(malformed("too many descriptors"));
            }
            let segment = Segment {
                addr: descriptor.addr(),
                len: descriptor.len(),
            };
            if descriptor.is_write_only() {
                self.writable.push(segment);
            } else if self.writable.is_empty() {
                self.readable.push(segment);
            } else {
                return Err(malformed("readable descriptor after a writable one"));
            }
            incomplete = descriptor.has_next();
        }
        if incomplete {
            return Err(malformed("descriptor chain does not end"));
        }
        Ok(())
    }

    /// Copies the first `N` readable bytes and removes them from the data.
    fn take_front<const N: usize>(
        &mut self,
        queue: u16,
        memory: &Memory,
    ) -> Result<[u8; N], QueueFault> {
        let mut bytes = [0; N];
        let mut missing = bytes.as_mut_slice();
        for segment in &mut self.readable {
            let len = missing.len().min(segment.len as usize);
            let (now, later) = missing.split_at_mut(len);
            let read = memory.read_slice(now, segment.addr);
            read.map_err(|source| QueueFault::Memory { queue, source })?;
            missing = later;
            let len = u32::try_from(len).unwrap_or(segment.len);
            segment.addr = GuestAddress(segment.addr.raw_value().saturating_add(u64::from(len)));
            segment.len = segment.len.saturating_sub(len);
            if missing.is_empty() {
                break;
            }
        }
        if !missing.is_empty() {
            let reason = "readable bytes too short for what they hold";
            return Err(QueueFault::Malformed { queue, reason });
        }
        self.readable.retain(|segment| segment.len > 0);
        Ok(bytes)
    }

    /// Removes the last writable byte from the data: the status byte.
    fn take_status(&mut self, queue: u16, memory: &Memory) -> Result<GuestAddress, QueueFault> {
        self.writable.retain(|segment| segment.len > 0);
        let Some(last) = self.writable.last_mut() else {
            let reason = "no room for the status byte";
            return Err(QueueFault::Malformed { queue, reason });
        };
        last.len = last.len.saturating_sub(1);
        let status = last.addr.checked_add(u64::from(last.len));
        let fault = |addr| QueueFault::Memory {
            queue,
            source: GuestMemoryError::InvalidGuestAddress(addr),
        };
        let status = status.ok_or_else(|| fault(last.addr))?;
        if !memory.address_in_range(status) {
            return Err(fault(status));
        }
        self.writable.retain(|segment| segment.len > 0);
        Ok(status)
    }

    /// Reads the ranges of a DISCARD or WRITE_ZEROES into [`Layout::extents`].
    fn parse_ranges(
        &mut self,
        queue: u16,
        memory: &Memory,
        kind: u32,
        limits: &Limits,
    ) -> Result<Command, QueueFault> {
        if !limits.writable {
            return Ok(Command::Refuse(Status::IoError));
        }
        if !limits.discard {
            return Ok(Command::Refuse(Status::Unsupported));
        }
        let bytes = total(&self.readable);
        let range_bytes = RANGE_BYTES as u64;
        if bytes == 0
            || !bytes.is_multiple_of(range_bytes)
            || bytes > u64::from(MAX_RANGES) * range_bytes
        {
            return Ok(Command::Refuse(Status::IoError));
        }
        for _ in 0..bytes / range_bytes {
            match extent(self.take_front(queue, memory)?, kind, limits) {
                Ok(extent) => self.extents.push(extent),
                Err(status) => return Ok(Command::Refuse(status)),
            }
        }
        Ok(Command::Clear)
    }

    /// Copies `bytes` to the start of the writable data; what does not fit is cut.
    pub(super) fn scatter(
        &self,
        memory: &Memory,
        mut bytes: &[u8],
    ) -> Result<(), GuestMemoryError> {
        for segment in &self.writable {
            let (now, later) = bytes.split_at(bytes.len().min(segment.len as usize));
            memory.write_slice(now, segment.addr)?;
            bytes = later;
        }
        Ok(())
    }
}

/// One range of a DISCARD or WRITE_ZEROES (§5.2.6.2), checked.
fn extent(range: [u8; RANGE_BYTES], kind: u32, limits: &Limits) -> Result<Extent, Status> {
    let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = range;
    let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
    let action = match (kind, u32::from_le_bytes(flags)) {
        (VIRTIO_BLK_T_DISCARD, 0) => ExtentAction::Discard,
        (VIRTIO_BLK_T_WRITE_ZEROES, 0) => ExtentAction::Zero,
        (VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) => ExtentAction::Punch,
        _ => return Err(Status::Unsupported),
    };
    // A range of nothing does nothing, but `fallocate` refuses it.
    if sectors == 0 || sectors > MAX_RANGE_SECTORS {
        return Err(Status::IoError);
    }
    let len = u64::from(sectors) * SECTOR_BYTES;
    let offset = on_disk(sector, len, limits).ok_or(Status::IoError)?;
    Ok(Extent {
        offset,
        len,
        action,
    })
}

/// Byte range of the disk that the buffers stand for; nothing when it is no whole number of
/// sectors or reaches beyond the end.
fn data_range(sector: u64, buffers: &[Segment], limits: &Limits) -> Option<(u64, u32)> {
    let len = total(buffers);
    if !len.is_multiple_of(SECTOR_BYTES) {
        return None;
    }
    Some((on_disk(sector, len, limits)?, u32::try_from(len).ok()?))
}

fn on_disk(sector: u64, len: u64, limits: &Limits) -> Option<u64> {
    let offset = sector.checked_mul(SECTOR_BYTES)?;
    let end = offset.checked_add(len)?;
    (end <= limits.capacity).then_some(offset)
}

/// Bytes of these buffers; no sum of [`MAX_DESCRIPTORS`] lengths leaves a u64.
fn total(buffers: &[Segment]) -> u64 {
    buffers.iter().map(|segment| u64::from(segment.len)).sum()
}
