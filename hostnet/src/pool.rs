//! The networks of slots: where they come from, and which addresses in them are whose.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::slot::SlotIndex;

/// Prefix lengths a slot's network can have: 30 has just the two addresses that are needed.
const PREFIX_LENGTHS: std::ops::RangeInclusive<u8> = 8..=30;

/// Stands for the index of a slot in a [`Pool`].
const INDEX: &str = "{n}";

/// The IPv4 network of one slot: the first address is the host's, the second the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Ipv4Net", into = "Ipv4Net")]
pub struct Subnet(Ipv4Net);

impl Subnet {
    /// The network.
    pub fn net(self) -> Ipv4Net {
        self.0
    }

    /// The guest's address.
    pub fn guest(self) -> Ipv4Addr {
        self.host(2)
    }

    /// The host's address, which is the guest's gateway, with the length of the prefix.
    pub fn gateway(self) -> Ipv4Net {
        Ipv4Net::new_assert(self.host(1), self.0.prefix_len())
    }

    /// Whether the two have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.0.contains(&other.0) || other.0.contains(&self.0)
    }

    /// There is room for 1 and 2 in every network, because no prefix is longer than 30.
    fn host(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.network().to_bits() | number)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Subnet> for Ipv4Net {
    fn from(subnet: Subnet) -> Self {
        subnet.0
    }
}

impl TryFrom<Ipv4Net> for Subnet {
    type Error = SubnetError;

    fn try_from(net: Ipv4Net) -> Result<Self, SubnetError> {
        let first = net.network();
        if net.addr() != first {
            return Err(SubnetError::HostBits { net, first });
        }
        if !PREFIX_LENGTHS.contains(&net.prefix_len()) {
            return Err(SubnetError::Prefix { net });
        }
        let special = first.is_loopback()
            || first.is_link_local()
            || first.is_multicast()
            || first.is_unspecified()
            || first.is_broadcast();
        if special {
            return Err(SubnetError::Special { net });
        }
        Ok(Self(net))
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let net: Ipv4Net = text.parse().map_err(|_| SubnetError::Syntax {
            text: text.to_owned(),
        })?;
        net.try_into()
    }
}

/// Where the networks of slots come from: a network with `{n}` in place of one octet, which is the
/// slot's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The network of index 0.
    base: Ipv4Net,
    /// Bits by which an index is shifted to become its octet.
    shift: u32,
}

impl Pool {
    /// The network of the slot with this index.
    pub fn subnet(&self, index: SlotIndex) -> Subnet {
        let address = self.base.addr().to_bits() | u32::from(index.get()) << self.shift;
        let address = Ipv4Addr::from_bits(address);
        Subnet(Ipv4Net::new_assert(address, self.base.prefix_len()))
    }
}

impl Default for Pool {
    /// `10.{n}.0.0/24`
    fn default() -> Self {
        Self {
            base: Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 24),
            shift: 16,
        }
    }
}

impl FromStr for Pool {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let error = || SubnetError::Pool {
            text: text.to_owned(),
        };
        let (address, _) = text.split_once('/').ok_or_else(error)?;
        let position = address.split('.').position(|octet| octet == INDEX);
        let position = position
            .filter(|position| *position > 0)
            .and_then(|position| u32::try_from(position).ok())
            .ok_or_else(error)?;
        let shift = 24u32.checked_sub(position.saturating_mul(8));
        let shift = shift.ok_or_else(error)?;
        // Every index must give a network that is one, and 1 is the lowest.
        let first: Subnet = text.replace(INDEX, "1").parse()?;
        text.replace(INDEX, "255").parse::<Subnet>()?;
        let base: Ipv4Net = text.replace(INDEX, "0").parse().map_err(|_| error())?;
        let pool = Self { base, shift };
        if SlotIndex::new(1).map(|one| pool.subnet(one)) != Some(first) {
            return Err(error());
        }
        Ok(pool)
    }
}

/// Why a network cannot be a slot's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Not a network.
    #[error("\"{text}\" is not an IPv4 network: expected one such as 10.20.0.0/24")]
    Syntax {
        /// What was given.
        text: String,
    },
    /// The address has bits after its prefix.
    #[error("{net} is an address in a network: expected the network, {first}/{}", net.prefix_len())]
    HostBits {
        /// What was given.
        net: Ipv4Net,
        /// The first address of its network.
        first: Ipv4Addr,
    },
    /// Too large or too small.
    #[error(
        "{net} does not suit a slot: expected a prefix of {} to {} bits",
        PREFIX_LENGTHS.start(),
        PREFIX_LENGTHS.end()
    )]
    Prefix {
        /// What was given.
        net: Ipv4Net,
    },
    /// An address range with a meaning of its own.
    #[error(
        "{net} is loopback, link-local, multicast or unspecified: expected one such as 10.20.0.0/24"
    )]
    Special {
        /// What was given.
        net: Ipv4Net,
    },
    /// Not a template.
    #[error(
        "\"{text}\" is not a pool: expected a network with {{n}} in place of the second or third octet, within the prefix, \
         such as 10.{{n}}.0.0/24"
    )]
    Pool {
        /// What was given.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(number: i64) -> SlotIndex {
        SlotIndex::new(number).unwrap()
    }

    #[test]
    fn every_index_has_a_network_of_its_own() {
        for text in ["10.{n}.0.0/24", "172.16.{n}.0/28", "192.168.{n}.64/30"] {
            let pool: Pool = text.parse().unwrap();
            for number in 1..=255 {
                let subnet = pool.subnet(index(number));
                let expected = text.replace("{n}", &number.to_string());
                assert_eq!(subnet.to_string(), expected);
                assert!(Subnet::try_from(subnet.net()).is_ok());
            }
            assert!(!pool.subnet(index(1)).overlaps(pool.subnet(index(2))));
        }
        assert_eq!("10.{n}.0.0/24".parse(), Ok(Pool::default()));
    }

    #[test]
    fn first_address_is_the_hosts_and_second_the_guests() {
        let subnet: Subnet = "192.168.7.64/30".parse().unwrap();
        assert_eq!(subnet.gateway().to_string(), "192.168.7.65/30");
        assert_eq!(subnet.guest().to_string(), "192.168.7.66");
    }

    #[test]
    fn networks_that_do_not_suit_are_refused() {
        for text in [
            "",
            "10.1.0.0",
            "10.1.0.1/24",
            "10.1.0.0/31",
            "10.0.0.0/7",
            "127.1.0.0/24",
            "169.254.1.0/24",
            "224.1.0.0/24",
            "0.0.0.0/8",
            "fd00::/64",
        ] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }

    #[test]
    fn templates_whose_networks_would_overlap_are_refused() {
        for text in [
            "10.{n}.0.0/15",
            "10.0.{n}.0/16",
            "10.0.0.{n}/30",
            "10.1.0.0/24",
            "10.{n}.{n}.0/24",
            "{n}.0.0.0/24",
            "10.{n}.0.0",
            "10.1{n}.0.0/24",
            "10.{n}.0.1/24",
        ] {
            assert!(text.parse::<Pool>().is_err(), "{text}");
        }
    }

    #[test]
    fn networks_inside_each_other_overlap() {
        let large: Subnet = "10.0.0.0/8".parse().unwrap();
        let small: Subnet = "10.9.0.0/24".parse().unwrap();
        assert!(large.overlaps(small) && small.overlaps(large));
    }
}
