//! The virtio socket device (virtio 1.2 §5.10): stream sockets between guest and host, with no
//! network and no `AF_VSOCK` on the host.
//!
//! On the host, a Unix socket leads to the guest and further Unix sockets can be reached from it,
//! as Firecracker, Cloud Hypervisor and systemd's ssh proxy speak it:
//!
//! ```text
//! host program ── connect to vsock.sock, "CONNECT 22\n" ──▶ "OK 1073741824\n" ──▶ guest port 22
//! guest program ── connect to CID 2, port 52 ──▶ a service of this process on port 52,
//!                                               else the stream that `Dial` opens for port 52
//! ```
//!
//! Not for opening either: the listener arrives open, [`Dial`] knows names, and a [`Service`]
//! knows what its bytes mean. No datagrams and no `SEQPACKET`.
//!
//! `device` is what the transport sees, `worker` its thread around the three `queues`. [`Mux`]
//! knows every `connection` and decides what becomes of each packet; it knows no ring. A
//! connection has an `endpoint` (a Unix socket or a session of a service) and a `window` of credit
//! in each direction. Nothing here blocks, and everything a guest can make grow has a limit below.
//!
//! ```text
//!            host's CONNECT               guest's RESPONSE
//! (nothing) ────────────────▶ Asked ─────────────────────▶ Open ──RST──▶ (nothing)
//!     └──────── guest's REQUEST, endpoint found, RESPONSE ──▶┘ └─ both ends shut, RST ─▶ (nothing)
//! ```

mod config;
mod connection;
mod device;
mod endpoint;
mod handshake;
mod host;
mod mux;
mod packet;
mod queues;
mod service;
mod table;
mod window;
mod worker;

#[cfg(test)]
mod tests;

pub use config::{Cid, CidError, VsockConfig};
pub use device::Vsock;
pub use host::{Dial, VsockHost};
pub use mux::Mux;
pub use packet::{HEADER_BYTES, Header, Op};
pub(crate) use service::PrivilegedOnly;
pub use service::{Answer, Peer, Service, Session};

/// Most connections at a time, whoever opened them. Bounds, with [`WINDOW_BYTES`], what a guest
/// that sends to hosts that do not read can make this process hold: 128 MiB.
pub const MAX_CONNECTIONS: usize = 1024;

/// Bytes of a connection that wait for the host's end to take them, and what the guest is told
/// that it may send ahead.
pub const WINDOW_BYTES: u32 = 128 << 10;

/// Most bytes of a packet's data, as in Linux (`VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`). A longer packet
/// is malformed: without the limit, one packet could make the host copy 4 GiB.
pub const MAX_DATA_BYTES: u32 = 64 << 10;

/// Most sessions of services at a time: each may hold an answer of a megabyte.
pub const MAX_SESSIONS: usize = 64;

/// Most clients of the listener that have not said yet where they want to go. The oldest makes
/// room for a new one, so that silent clients keep nobody out.
const MAX_HANDSHAKES: usize = 64;

/// Resets that wait for a buffer of the guest. A guest that gives no buffers is not listened to
/// any more either, as in Linux's vhost.
const MAX_RESETS: usize = 256;

/// Packets moved in one direction before the other direction and the stop event get their turn.
const BURST_PACKETS: usize = 64;

/// CID of the host (§5.10.4).
const HOST_CID: u64 = 2;
