//! A real tap in a network namespace of its own, with a packet socket as the host's end, for tests
//! and benchmarks. Needs root.

mod sys;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{Lease, Tap, TapError, dhcp};

/// What a card with `lease` answers to `frame`, an Ethernet frame, if it is a request for DHCP.
pub fn answer_dhcp(lease: &Lease, frame: &[u8]) -> Option<Vec<u8>> {
    if dhcp::is_for_server(frame, lease.gateway) {
        return dhcp::answer(lease, frame);
    }
    None
}

/// A tap and the host's end of it. The namespace goes when both are dropped.
#[derive(Debug)]
pub struct TapPair {
    /// The tap, as a card takes it.
    pub tap: Tap,
    /// The host's end.
    pub host: HostEnd,
}

/// The host's end of a tap: sees each frame the card sends, and sends frames to the card. Each is
/// preceded by a `virtio_net_hdr` of 10 bytes. Blocking.
#[derive(Debug)]
pub struct HostEnd(OwnedFd);

/// Bytes of header in front of the frames of a [`HostEnd`].
pub const HOST_HEADER_BYTES: usize = 10;

/// Why no tap was made.
#[derive(Debug, thiserror::Error)]
pub enum TapPairError {
    /// The host does not let us; not a failure of what is tested.
    #[error("No network namespace or tap can be made here; run as root where /dev/net/tun exists")]
    NotPermitted(#[source] io::Error),
    /// The tap that was made does not do.
    #[error("Tap in a fresh namespace was refused")]
    Tap(#[from] TapError),
}

impl TapPair {
    /// Makes a tap named `tap0` in a fresh namespace, up and without addresses.
    ///
    /// # Errors
    /// When the host does not let us, or the tap is unfit.
    pub fn new() -> Result<Self, TapPairError> {
        let (tap, host) = make(|| Ok((sys::open_tap("tap0")?, sys::open_packet_socket("tap0")?)))?;
        Ok(Self {
            tap: Tap::new(tap)?,
            host,
        })
    }

    /// Makes such a tap with several queues.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn several(queues: usize) -> Result<(Vec<Tap>, HostEnd), TapPairError> {
        let (taps, host) = make(move || {
            let taps = (0..queues).map(|_| sys::open_tap_queue("tap0"));
            let taps = taps.collect::<io::Result<Vec<_>>>()?;
            Ok((taps, sys::open_packet_socket("tap0")?))
        })?;
        let taps: Result<_, _> = taps.into_iter().map(Tap::new).collect();
        Ok((taps?, host))
    }
}

/// Runs `open` in a fresh namespace.
fn make<T: Send + 'static>(
    open: impl FnOnce() -> io::Result<(T, OwnedFd)> + Send + 'static,
) -> Result<(T, HostEnd), TapPairError> {
    // A thread of its own, so that nobody else changes namespaces; open descriptors keep the
    // namespace alive after it.
    let opened = thread::spawn(|| {
        sys::enter_fresh_namespace()?;
        // Without IPv6 the host sends nothing on its own. It may not be there at all.
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        open()
    });
    let (card, host) = opened
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("thread panicked")))
        .map_err(TapPairError::NotPermitted)?;
    Ok((card, HostEnd(host)))
}

impl HostEnd {
    /// Waits for the next frame from the card and returns its length, header included.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.0.as_fd(), &mut *frame, RecvFlags::empty()) {
                Err(Errno::INTR | Errno::NETDOWN) => {}
                result => return Ok(result.map(|(bytes, _)| bytes)?),
            }
        }
    }

    /// Sends a frame, with its header, to the card.
    ///
    /// # Errors
    /// When the host refuses it, for instance because the card's queue is full (`ENOBUFS`).
    pub fn send(&self, frame: &[u8]) -> io::Result<usize> {
        Ok(send(self.0.as_fd(), frame, SendFlags::empty())?)
    }
}
