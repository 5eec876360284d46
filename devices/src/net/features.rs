//! What the card offers, and what follows from what the driver took (virtio 1.2 §5.1.3).

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_VQ,
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ,
    VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::rx::Buffers;
use super::{NetConfig, Offloads};
use crate::device::Activation;

/// Offered by every card.
const ALWAYS: [u32; 18] = [
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
    VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_GUEST_ECN,
    VIRTIO_NET_F_GUEST_UFO,
    VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_HOST_UFO,
    VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_STATUS,
    VIRTIO_NET_F_CTRL_VQ,
    VIRTIO_RING_F_INDIRECT_DESC,
    VIRTIO_RING_F_EVENT_IDX,
    VIRTIO_F_VERSION_1,
];

/// Offered when the host's tap knows UDP segments (Linux 6.2 and later).
const WITH_UDP_SEGMENTS: [u32; 3] = [
    VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6,
    VIRTIO_NET_F_HOST_USO,
];

/// Which frames a driver takes unfinished, by feature bit; the same bits make the argument of
/// `VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET` (§5.1.6.5.6).
const GUEST_OFFLOADS: [(u32, Offloads); 7] = [
    (VIRTIO_NET_F_GUEST_CSUM, Offloads::CHECKSUM),
    (VIRTIO_NET_F_GUEST_TSO4, Offloads::TSO4),
    (VIRTIO_NET_F_GUEST_TSO6, Offloads::TSO6),
    (VIRTIO_NET_F_GUEST_ECN, Offloads::ECN),
    (VIRTIO_NET_F_GUEST_UFO, Offloads::UFO),
    (VIRTIO_NET_F_GUEST_USO4, Offloads::USO4),
    (VIRTIO_NET_F_GUEST_USO6, Offloads::USO6),
];

/// Whether the tap passes UDP segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UdpSegments {
    /// It does.
    Known,
    /// It refuses them.
    Unknown,
}

/// Every feature of a card with `pairs` pairs of queues.
pub(super) fn offered(config: &NetConfig, pairs: u16, udp: UdpSegments) -> u64 {
    let when = |condition: bool, bits: &'static [u32]| if condition { bits } else { &[] };
    ALWAYS
        .iter()
        .chain(when(config.mtu.is_some(), &[VIRTIO_NET_F_MTU]))
        .chain(when(pairs > 1, &[VIRTIO_NET_F_MQ]))
        .chain(when(udp == UdpSegments::Known, &WITH_UDP_SEGMENTS))
        .fold(0, |features, bit| features | 1 << bit)
}

/// `struct virtio_net_config` (§5.1.4) up to the MTU.
pub(super) fn config_space(config: &NetConfig, pairs: u16) -> [u8; 12] {
    let mut space = [0; 12];
    let status = u16::try_from(VIRTIO_NET_S_LINK_UP).unwrap_or_default();
    let words = [status, pairs, config.mtu.unwrap_or_default()];
    let bytes = config
        .mac
        .0
        .into_iter()
        .chain(words.into_iter().flat_map(u16::to_le_bytes));
    for (field, byte) in space.iter_mut().zip(bytes) {
        *field = byte;
    }
    space
}

/// The offloads whose feature bits are set in `bits`. Other bits are ignored.
pub(super) fn offloads(bits: u64) -> Offloads {
    GUEST_OFFLOADS
        .into_iter()
        .filter(|(bit, _)| bits & 1 << bit != 0)
        .fold(Offloads::default(), |all, (_, one)| all.and(one))
}

/// The feature bits of every offload.
pub(super) fn offload_bits() -> u64 {
    GUEST_OFFLOADS
        .into_iter()
        .fold(0, |bits, (bit, _)| bits | 1 << bit)
}

/// How the driver takes frames.
pub(super) fn receive_form(run: &Activation) -> Buffers {
    if run.acked(VIRTIO_NET_F_MRG_RXBUF) {
        Buffers::Merged
    } else {
        Buffers::Single
    }
}
