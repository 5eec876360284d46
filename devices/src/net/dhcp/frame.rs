//! DHCP messages in Ethernet frames: out of those that a guest sends, and into those it gets.

use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet,
    Ipv4Repr, UdpPacket, UdpRepr,
};

/// Where servers listen.
const SERVER_PORT: u16 = 67;
/// Where clients listen.
const CLIENT_PORT: u16 = 68;

/// Ethernet, the longest IPv4 header and UDP: enough to tell whom a frame is for.
pub(in crate::net) const HEADERS_BYTES: usize = 14 + 60 + 8;

/// What the answers come from; locally administered, and nobody else's on a bridge that no answer
/// ever reaches.
const SERVER_MAC: EthernetAddress = EthernetAddress([0x06, b'd', b'h', b'c', b'p', b'4']);

/// Shortest message of BOOTP (RFC 951), which some clients insist on.
const MESSAGE_MIN_BYTES: usize = 300;

/// Whom an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recipient {
    pub(super) mac: EthernetAddress,
    pub(super) ip: Ipv4Addr,
}

impl Recipient {
    /// Everybody on the wire.
    pub(super) const ALL: Self = Self {
        mac: EthernetAddress::BROADCAST,
        ip: Ipv4Addr::BROADCAST,
    };
}

/// Whether a frame, of which `start` is the beginning, is a datagram to the DHCP server: to
/// `server`, or to whoever is one.
pub(in crate::net) fn is_for_server(start: &[u8], server: Ipv4Addr) -> bool {
    let Ok(ethernet) = EthernetFrame::new_checked(start) else {
        return false;
    };
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return false;
    }
    // The packet is longer than its beginning, which `new_checked` would refuse.
    let packet = ethernet.payload();
    let [version_and_length, .., _, _, _, _] = packet else {
        return false;
    };
    let header_bytes = usize::from(version_and_length & 0x0f) * 4;
    let udp = packet.get(header_bytes..).unwrap_or_default();
    let [_, _, high, low, ..] = udp else {
        return false;
    };
    if packet.len() < 20 || header_bytes < 20 || version_and_length >> 4 != 4 {
        return false;
    }
    let packet = Ipv4Packet::new_unchecked(packet);
    let to = packet.dst_addr();
    packet.next_header() == IpProtocol::Udp
        && packet.frag_offset() == 0
        && u16::from_be_bytes([*high, *low]) == SERVER_PORT
        && (to == server || to == Ipv4Addr::BROADCAST)
}

/// The DHCP message in a whole frame for which [`is_for_server`] holds. Nothing when the frame is
/// damaged. Checksums are not looked at: a guest may leave them to its card.
pub(super) fn message(frame: &[u8]) -> Option<&[u8]> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    if packet.more_frags() {
        return None;
    }
    let datagram = UdpPacket::new_checked(packet.payload()).ok()?;
    Some(datagram.payload())
}

/// A whole frame with `message` in it.
pub(super) fn wrap(message: &[u8], server: Ipv4Addr, to: Recipient) -> Vec<u8> {
    let mut padded = message.to_vec();
    padded.resize(message.len().max(MESSAGE_MIN_BYTES), 0);
    let udp = UdpRepr {
        src_port: SERVER_PORT,
        dst_port: CLIENT_PORT,
    };
    let ip = Ipv4Repr {
        src_addr: server,
        dst_addr: to.ip,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + padded.len(),
        hop_limit: 64,
    };
    let ethernet = EthernetRepr {
        src_addr: SERVER_MAC,
        dst_addr: to.mac,
        ethertype: EthernetProtocol::Ipv4,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + ip.buffer_len() + ip.payload_len];
    let checksums = ChecksumCapabilities::default();
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &checksums);
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &server.into(),
        &to.ip.into(),
        padded.len(),
        |payload| payload.copy_from_slice(&padded),
        &checksums,
    );
    bytes
}
