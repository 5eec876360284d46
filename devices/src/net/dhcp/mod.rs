//! A DHCP server for the one guest of a card (RFC 2131, options of RFC 2132), inside the card: what
//! the guest sends to a DHCP server is answered here and never reaches the tap.
//!
//! There is one lease, for the card's own address, and it never changes while the card exists. So
//! there is nothing to remember: every answer follows from the request and the [`Lease`] alone.
//!
//! Not for a network with several clients behind the guest: another client's requests are ignored.

mod frame;
mod responder;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

pub(super) use frame::{HEADERS_BYTES, is_for_server};
pub(super) use responder::answer;

use super::MacAddr;

/// Longest frame that is looked at as a request: RFC 2131 §2 lets a client send 576 bytes unless
/// the server offers more; some send a whole Ethernet frame.
pub(super) const REQUEST_MAX_BYTES: usize = 1514;

/// Most name servers in a [`Lease`]; the rest is not told.
const MAX_DNS_SERVERS: usize = 8;

/// What the guest is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Address of the card, whose requests alone are answered.
    pub mac: MacAddr,
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Bits of the network's part of it, 0 to 32.
    pub prefix_len: u8,
    /// The gateway; also what the server calls itself.
    pub gateway: Ipv4Addr,
    /// Name servers, best first; up to 8.
    pub dns: Vec<Ipv4Addr>,
    /// Host name, told when there is room for it in a datagram of 576 bytes.
    pub hostname: String,
    /// Largest packet, when it is not the usual one.
    pub mtu: Option<u16>,
}

impl Lease {
    /// The mask of the network.
    fn netmask(&self) -> Ipv4Addr {
        let host_bits = 32_u32.saturating_sub(self.prefix_len.into());
        Ipv4Addr::from_bits(u32::MAX.checked_shl(host_bits).unwrap_or(0))
    }
}
