//! The header of a packet (`struct virtio_vsock_hdr`, §5.10.6). The header is copied out of guest
//! memory once and only the copy is looked at: the guest may change the original meanwhile.

pub use virtio_vsock::packet::PKT_HEADER_SIZE as HEADER_BYTES;

/// The one socket type this device has (§5.10.6, `VIRTIO_VSOCK_TYPE_STREAM`).
pub(super) const TYPE_STREAM: u16 = 1;

/// The sender takes no more data (`VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`).
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
/// The sender sends no more data (`VIRTIO_VSOCK_SHUTDOWN_F_SEND`).
pub(super) const SHUTDOWN_SEND: u32 = 2;
/// Both.
pub(super) const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// What a packet is for (§5.10.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Op {
    /// Asks for a connection.
    Request = 1,
    /// Accepts one.
    Response = 2,
    /// Ends one, or says that there is none.
    Reset = 3,
    /// Announces that data ends in one direction or in both.
    Shutdown = 4,
    /// Carries data.
    Data = 5,
    /// Tells how much room there is.
    CreditUpdate = 6,
    /// Asks to be told.
    CreditRequest = 7,
}

impl Op {
    /// The operation of that number, when there is one.
    pub fn of(number: u16) -> Option<Self> {
        [
            Self::Request,
            Self::Response,
            Self::Reset,
            Self::Shutdown,
            Self::Data,
            Self::CreditUpdate,
            Self::CreditRequest,
        ]
        .into_iter()
        .find(|op| *op as u16 == number)
    }
}

/// A packet's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// Sender's address.
    pub src_cid: u64,
    /// Receiver's address.
    pub dst_cid: u64,
    /// Sender's port.
    pub src_port: u32,
    /// Receiver's port.
    pub dst_port: u32,
    /// Bytes of data that follow.
    pub len: u32,
    /// Type of the socket; 1 is a stream.
    pub kind: u16,
    /// An [`Op`], or anything else from a guest that breaks the protocol.
    pub op: u16,
    /// Meaning depends on the operation.
    pub flags: u32,
    /// Size of the sender's receive buffer.
    pub buf_alloc: u32,
    /// Bytes that ever left the sender's receive buffer, modulo 2³².
    pub fwd_cnt: u32,
}

impl Header {
    /// Reads the 44 little-endian bytes.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        Self {
            src_cid: u64::from_le_bytes(field(bytes, 0)),
            dst_cid: u64::from_le_bytes(field(bytes, 8)),
            src_port: u32::from_le_bytes(field(bytes, 16)),
            dst_port: u32::from_le_bytes(field(bytes, 20)),
            len: u32::from_le_bytes(field(bytes, 24)),
            kind: u16::from_le_bytes(field(bytes, 28)),
            op: u16::from_le_bytes(field(bytes, 30)),
            flags: u32::from_le_bytes(field(bytes, 32)),
            buf_alloc: u32::from_le_bytes(field(bytes, 36)),
            fwd_cnt: u32::from_le_bytes(field(bytes, 40)),
        }
    }

    /// The 44 bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let words = [self.len.to_le_bytes(), join(self.kind, self.op)];
        let tail = [self.flags, self.buf_alloc, self.fwd_cnt].map(u32::to_le_bytes);
        let ports = [self.src_port, self.dst_port].map(u32::to_le_bytes);
        let cids = [self.src_cid, self.dst_cid].map(u64::to_le_bytes);
        let all = cids
            .as_flattened()
            .iter()
            .chain(ports.as_flattened())
            .chain(words.as_flattened())
            .chain(tail.as_flattened());
        for (byte, value) in bytes.iter_mut().zip(all) {
            *byte = *value;
        }
        bytes
    }

    /// A reset in answer to this packet.
    pub(super) fn reset(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: Op::Reset as u16,
            ..Self::default()
        }
    }
}

fn join(low: u16, high: u16) -> [u8; 4] {
    (u32::from(low) | u32::from(high) << 16).to_le_bytes()
}

/// `N` bytes at a fixed place within the header.
fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}
