//! What is answered to which request (RFC 2131 §4.3).

use std::net::Ipv4Addr;

use smoltcp::wire::{
    ArpHardware, DhcpFlags, DhcpMessageType as MessageType, DhcpOpCode, DhcpOption, DhcpPacket,
    EthernetAddress,
};

use super::frame::{Recipient, message, wrap};
use super::{Lease, MAX_DNS_SERVERS};

/// How long the lease is told to last. A guest that comes up elsewhere asks again by then.
const LEASE_SECONDS: u32 = 12 * 3600;

/// "DHCP" of RFC 1497.
const MAGIC: u32 = 0x6382_5363;

/// Fixed part of a message, up to the options.
const FIXED_BYTES: usize = 240;

/// Most bytes of options: a client need not take a datagram of more than 576 bytes (RFC 2131 §2),
/// which leaves this much behind the headers of IP and UDP, the fixed part and the end mark.
const OPTIONS_MAX_BYTES: usize = 576 - 28 - FIXED_BYTES - 1;

/// Ends the options.
const END: u8 = 255;

/// Option codes of RFC 2132.
mod option {
    pub(super) const SUBNET_MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const NAME_SERVERS: u8 = 6;
    pub(super) const HOST_NAME: u8 = 12;
    pub(super) const MTU: u8 = 26;
    pub(super) const REQUESTED_ADDRESS: u8 = 50;
    pub(super) const LEASE_TIME: u8 = 51;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const RENEWAL_TIME: u8 = 58;
    pub(super) const REBINDING_TIME: u8 = 59;
    pub(super) const CLIENT_ID: u8 = 61;
}

/// A request, as far as it matters.
struct Request<'a> {
    packet: DhcpPacket<&'a [u8]>,
    kind: MessageType,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    /// Given back in the answer (RFC 6842).
    client_id: Option<Vec<u8>>,
}

/// The frame that answers the guest's `frame`, for which `is_for_server` holds. Nothing when none
/// is due: the frame is damaged, another client's, for another server, or needs no answer.
pub(in crate::net) fn answer(lease: &Lease, frame: &[u8]) -> Option<Vec<u8>> {
    let request = Request::parse(message(frame)?)?;
    let for_us = request.server.is_none_or(|server| server == lease.gateway);
    let is_ours = request.packet.client_hardware_address() == EthernetAddress(lease.mac.0);
    let relayed = !request.packet.relay_agent_ip().is_unspecified();
    if !for_us || !is_ours || relayed {
        return None;
    }
    let kind = match request.kind {
        MessageType::Discover => MessageType::Offer,
        MessageType::Request => request.verdict(lease)?,
        MessageType::Inform => MessageType::Ack,
        // The lease is for nobody else, so that it needs no release. A guest that declines it has
        // found its address on another machine, which the network's owner has to see to.
        _ => return None,
    };
    let reply = request.reply(lease, kind);
    Some(wrap(&reply, lease.gateway, request.recipient(lease, kind)))
}

impl<'a> Request<'a> {
    fn parse(message: &'a [u8]) -> Option<Self> {
        let packet = DhcpPacket::new_checked(message).ok()?;
        let is_request = packet.opcode() == DhcpOpCode::Request
            && packet.magic_number() == MAGIC
            && packet.hardware_type() == ArpHardware::Ethernet
            && packet.hardware_len() == 6;
        if !is_request {
            return None;
        }
        let (mut kind, mut requested, mut server, mut client_id) = (None, None, None, None);
        let address = |data: &[u8]| <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from);
        for DhcpOption { kind: code, data } in packet.options() {
            match (code, data) {
                (option::MESSAGE_TYPE, [one]) => kind = Some(MessageType::from(*one)),
                (option::REQUESTED_ADDRESS, data) => requested = address(data),
                (option::SERVER, data) => server = address(data),
                (option::CLIENT_ID, data) => client_id = Some(data.to_vec()),
                _ => {}
            }
        }
        Some(Self {
            kind: kind?,
            packet,
            requested,
            server,
            client_id,
        })
    }

    /// What becomes of a request for an address: new, after a reboot, or to keep it (§4.3.2).
    fn verdict(&self, lease: &Lease) -> Option<MessageType> {
        let current = self.packet.client_ip();
        let wanted = self
            .requested
            .or((!current.is_unspecified()).then_some(current))?;
        Some(if wanted == lease.address {
            MessageType::Ack
        } else {
            MessageType::Nak
        })
    }

    /// §4.1: to the address that the guest has or gets, or to all when it cannot hear that yet.
    fn recipient(&self, lease: &Lease, kind: MessageType) -> Recipient {
        let mac = self.packet.client_hardware_address();
        let current = self.packet.client_ip();
        if kind == MessageType::Nak {
            return Recipient::ALL;
        }
        if !current.is_unspecified() {
            return Recipient { mac, ip: current };
        }
        if self.packet.flags().contains(DhcpFlags::BROADCAST) {
            return Recipient::ALL;
        }
        let ip = lease.address;
        Recipient { mac, ip }
    }

    fn reply(&self, lease: &Lease, kind: MessageType) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_BYTES];
        let mut reply = DhcpPacket::new_unchecked(bytes.as_mut_slice());
        reply.set_opcode(DhcpOpCode::Reply);
        reply.set_hardware_type(ArpHardware::Ethernet);
        reply.set_hardware_len(6);
        reply.set_transaction_id(self.packet.transaction_id());
        reply.set_flags(self.packet.flags());
        reply.set_client_hardware_address(self.packet.client_hardware_address());
        reply.set_magic_number(MAGIC);
        if kind != MessageType::Nak {
            reply.set_client_ip(self.packet.client_ip());
            // Who only asks for information has an address already (§4.3.5).
            if self.kind != MessageType::Inform {
                reply.set_your_ip(lease.address);
            }
        }
        bytes.extend(self.options(lease, kind).0);
        bytes.push(END);
        bytes
    }

    fn options(&self, lease: &Lease, kind: MessageType) -> Options {
        let mut options = Options::default();
        options.push(option::MESSAGE_TYPE, &[kind.into()]);
        options.push(option::SERVER, &lease.gateway.octets());
        if let Some(client_id) = &self.client_id {
            options.push(option::CLIENT_ID, client_id);
        }
        if kind == MessageType::Nak {
            return options;
        }
        if self.kind != MessageType::Inform {
            options.push(option::LEASE_TIME, &LEASE_SECONDS.to_be_bytes());
            let (renewal, rebinding) = (LEASE_SECONDS / 2, LEASE_SECONDS / 8 * 7);
            options.push(option::RENEWAL_TIME, &renewal.to_be_bytes());
            options.push(option::REBINDING_TIME, &rebinding.to_be_bytes());
        }
        options.push(option::SUBNET_MASK, &lease.netmask().octets());
        options.push(option::ROUTER, &lease.gateway.octets());
        let dns = lease.dns.iter().take(MAX_DNS_SERVERS);
        let dns: Vec<u8> = dns.flat_map(|server| server.octets()).collect();
        options.push(option::NAME_SERVERS, &dns);
        if let Some(mtu) = lease.mtu {
            options.push(option::MTU, &mtu.to_be_bytes());
        }
        options.push(option::HOST_NAME, lease.hostname.as_bytes());
        options
    }
}

/// Options of an answer, in the order of their importance.
#[derive(Default)]
struct Options(Vec<u8>);

impl Options {
    /// Adds an option that has data. One for which there is no room is left out.
    fn push(&mut self, code: u8, data: &[u8]) {
        let Ok(length) = u8::try_from(data.len()) else {
            return;
        };
        if length > 0 && self.0.len() + 2 + data.len() <= OPTIONS_MAX_BYTES {
            self.0.extend([code, length]);
            self.0.extend(data);
        }
    }
}
