//! What the network of slots should be, as data: one [`SlotSpec`] for each slot, one [`HostSpec`]
//! for what they share. Pure.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::pool::Subnet;
use crate::slot::{InterfaceName, SlotName};

/// The network of one slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSpec {
    /// The slot.
    pub name: SlotName,
    /// Its bridge on the host.
    pub bridge: InterfaceName,
    /// The tap in it.
    pub tap: InterfaceName,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// Its network; says the addresses of host and guest.
    pub subnet: Subnet,
    /// User that opens the tap.
    pub owner: u32,
    /// Where the guest may connect to.
    pub egress: Egress,
    /// Whether the guest may reach 169.254.169.254, the metadata service of clouds.
    pub allow_imds: bool,
    /// Ports of the gateway address that the guest may reach, besides DNS and DHCP.
    pub host_ports: Vec<HostPort>,
    /// Ports of the host that lead to the guest.
    pub publish: Vec<Publish>,
}

impl SlotSpec {
    /// The guest's MAC address as text.
    pub fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// What all slots share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSpec {
    /// The interface towards the world; nothing when there is none.
    pub uplink: Option<InterfaceName>,
    /// Interfaces whose other side may connect to every slot.
    pub trusted: Vec<InterfaceName>,
    /// Name servers that queries to the gateways are passed on to; empty when a resolver on the
    /// host answers them.
    pub dns: Vec<Ipv4Addr>,
    /// Which slots may connect to which.
    pub allow: Vec<Pair>,
    /// Connections of slots that are led elsewhere, such as to a proxy.
    pub dnat: Vec<Redirect>,
}

/// Where a guest may connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Egress {
    /// Everywhere.
    Unrestricted,
    /// HTTP and HTTPS anywhere: TCP 80 and 443, UDP 443.
    Web,
    /// Nowhere.
    None,
    /// To what one of the rules admits.
    Rules(Vec<EgressRule>),
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unrestricted => f.write_str("unrestricted"),
            Self::Web => f.write_str("web"),
            Self::None => f.write_str("none"),
            Self::Rules(rules) => write!(f, "{} rules", rules.len()),
        }
    }
}

/// One thing that a guest may connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRule {
    /// The protocol.
    pub proto: Protocol,
    /// Ports, or all when empty; ICMP has none.
    pub ports: Vec<PortRange>,
    /// Networks, or all when empty.
    pub cidrs: Vec<Ipv4Net>,
}

/// One slot may connect to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Who connects.
    pub from: SlotName,
    /// Whom to.
    pub to: SlotName,
    /// TCP ports.
    pub tcp: Vec<PortRange>,
    /// UDP ports.
    pub udp: Vec<PortRange>,
    /// Whether ICMP passes.
    pub icmp: bool,
}

/// Connections of slots to one port anywhere go to one address instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// Whose connections; all slots' when empty.
    pub slots: Vec<SlotName>,
    /// The protocol.
    pub proto: Transport,
    /// The port they are for.
    pub port: u16,
    /// Where they go.
    pub to: SocketAddrV4,
}

/// A port of the host that leads to a port of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The protocol.
    pub proto: Transport,
    /// The host's port.
    pub host: u16,
    /// The guest's port.
    pub guest: u16,
}

/// A port of the gateway that a guest may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// The protocol.
    pub proto: Transport,
    /// The ports.
    pub ports: PortRange,
}

impl FromStr for HostPort {
    type Err = PortError;

    /// Reads `9100`, which is TCP, `tcp/9100` or `udp/5000-5010`.
    fn from_str(text: &str) -> Result<Self, PortError> {
        let (proto, ports) = match text.split_once('/') {
            Some((proto, ports)) => (proto.parse()?, ports),
            None => (Transport::Tcp, text),
        };
        Ok(Self {
            proto,
            ports: ports.parse()?,
        })
    }
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Transport {
    /// As nftables writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Transport {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(PortError::Transport {
                text: text.to_owned(),
            }),
        }
    }
}

/// A protocol that a rule can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// ICMP
    Icmp,
}

/// Ports from the first to the last, both included; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The first port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    pub fn last(self) -> u16 {
        self.last
    }
}

/// The same ports in ranges that neither overlap nor touch, sorted.
pub fn merged(ranges: &[PortRange]) -> Vec<PortRange> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

impl TryFrom<String> for PortRange {
    type Error = PortError;

    fn try_from(text: String) -> Result<Self, PortError> {
        text.parse()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for PortRange {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let error = || PortError::Range {
            text: text.to_owned(),
        };
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first = port(first).ok_or_else(error)?;
        let last = port(last).ok_or_else(error)?;
        if first > last {
            return Err(error());
        }
        Ok(Self { first, last })
    }
}

/// Why a port was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Not a port or range.
    #[error("\"{text}\" is not a port: expected 1 to 65535, or a range such as 8000-8100")]
    Range {
        /// What was given.
        text: String,
    },
    /// Not a protocol.
    #[error("\"{text}\" is not a protocol with ports: expected tcp or udp")]
    Transport {
        /// What was given.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges_are_read_and_written_alike() {
        for text in ["1", "65535", "8000-8100"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
        for text in ["", "0", "65536", "9-8", "1-", "-1", "80,443", "http"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_that_overlap_or_touch_become_one() {
        let ranges = ["90", "80-85", "443", "84-89", "443"].map(|text| text.parse().unwrap());
        let texts: Vec<String> = merged(&ranges).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["80-90", "443"]);
    }

    #[test]
    fn a_host_port_without_protocol_is_tcp() {
        let port = |text: &str| text.parse::<HostPort>().unwrap();
        assert_eq!(port("9100"), port("tcp/9100"));
        assert_eq!(port("udp/53").proto, Transport::Udp);
        assert!("icmp/1".parse::<HostPort>().is_err());
    }
}
