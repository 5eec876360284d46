//! What a slot is called and which addresses it has: a pure function of its name and index.
//!
//! Slot `slot7` has index 7, and from that bridge `br-slot7`, tap `vm-slot7`, MAC
//! `02:00:00:00:00:07`, guest address `10.7.0.2/24`, gateway `10.7.0.1` and vsock CID 9. The MAC
//! ends in the index as a hexadecimal number, so slot 10 has `0a` and no two slots share one.

use std::fmt;
use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::pool::{Pool, Subnet};

/// Longest name of a network interface in bytes: `IFNAMSIZ` less the closing NUL.
pub const MAX_INTERFACE_NAME: usize = 15;

/// Longest name of a slot in bytes. It becomes a directory, a host name label and part of Unix
/// socket paths, which have room for 107 bytes in all.
pub const MAX_SLOT_NAME: usize = 40;

/// Name of a slot: 1 to [`MAX_SLOT_NAME`] lower-case letters, digits and hyphens, with a letter
/// first and no hyphen last. Such a name is safe as a file name and as a host name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct SlotName(String);

impl TryFrom<String> for SlotName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl SlotName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The index that the name itself carries: `slot7` has 7; other names, `slot0`, `slot007`
    /// and `slot256` have none.
    pub fn index(&self) -> Option<SlotIndex> {
        let digits = self.0.strip_prefix("slot")?;
        if digits.starts_with('0') {
            return None;
        }
        digits.parse::<NonZeroU8>().ok().map(SlotIndex)
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SlotName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let error = || NameError::Slot {
            name: text.to_owned(),
        };
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase());
        if text.len() > MAX_SLOT_NAME
            || !starts_well
            || text.ends_with('-')
            || !text.chars().all(allowed)
        {
            return Err(error());
        }
        Ok(Self(text.to_owned()))
    }
}

/// Number of a slot, 1 to 255; unique on a host, because addresses come from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SlotIndex(NonZeroU8);

impl SlotIndex {
    /// The index `number`, or nothing when it is not 1 to 255.
    pub fn new(number: i64) -> Option<Self> {
        let number = u8::try_from(number).ok()?;
        NonZeroU8::new(number).map(Self)
    }

    /// The index as a number.
    pub fn get(self) -> u8 {
        self.0.get()
    }
}

/// Name of a network interface: 1 to [`MAX_INTERFACE_NAME`] bytes, none of them a slash, a colon
/// or white space, and neither `.` nor `..` (the kernel's own rules). Quotes, backslashes and
/// asterisks, which the kernel allows, are refused: nftables reads more than a name into them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct InterfaceName(String);

impl TryFrom<String> for InterfaceName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl InterfaceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InterfaceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_INTERFACE_NAME {
            return Err(NameError::InterfaceTooLong {
                name: text.to_owned(),
                length: text.len(),
            });
        }
        let forbidden = |c: char| "/:\"\\*".contains(c) || !c.is_ascii_graphic();
        if text.is_empty()
            || text == "."
            || text == ".."
            || !text.is_ascii()
            || text.contains(forbidden)
        {
            return Err(NameError::Interface {
                name: text.to_owned(),
            });
        }
        Ok(Self(text.to_owned()))
    }
}

/// Why a name was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a slot name.
    #[error(
        "\"{name}\" is not a slot name: expected 1 to {MAX_SLOT_NAME} lower-case letters, digits and hyphens, \
         a letter first, such as slot1"
    )]
    Slot {
        /// What was given.
        name: String,
    },
    /// An interface name the kernel has no room for.
    #[error(
        "Interface name \"{name}\" has {length} bytes, the kernel allows {MAX_INTERFACE_NAME}: choose a shorter one"
    )]
    InterfaceTooLong {
        /// What was given or derived.
        name: String,
        /// Its length in bytes.
        length: usize,
    },
    /// An interface name the kernel rejects.
    #[error(
        "\"{name}\" is not an interface name: expected ASCII without slash, colon, quote, backslash, asterisk \
         and white space"
    )]
    Interface {
        /// What was given.
        name: String,
    },
}

/// The network identity of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotNet {
    name: SlotName,
    index: SlotIndex,
    subnet: Subnet,
}

impl SlotNet {
    /// The identity of the slot of this name and index, in the network `10.<index>.0.0/24`.
    pub fn new(name: SlotName, index: SlotIndex) -> Self {
        Self::within(name, index, Pool::default().subnet(index))
    }

    /// The identity of the slot of this name and index in a network of its own.
    pub fn within(name: SlotName, index: SlotIndex, subnet: Subnet) -> Self {
        Self {
            name,
            index,
            subnet,
        }
    }

    /// The slot's network.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Name of the slot.
    pub fn name(&self) -> &SlotName {
        &self.name
    }

    /// Index of the slot.
    pub fn index(&self) -> SlotIndex {
        self.index
    }

    /// The host's bridge of the slot, `br-<name>`.
    ///
    /// # Errors
    /// When the slot's name is too long for it; the bridge must be named explicitly then.
    pub fn bridge(&self) -> Result<InterfaceName, NameError> {
        format!("br-{}", self.name).parse()
    }

    /// The tap of the slot's first network card, `vm-<name>`.
    ///
    /// # Errors
    /// When the slot's name is too long for it; the tap must be named explicitly then.
    pub fn tap(&self) -> Result<InterfaceName, NameError> {
        format!("vm-{}", self.name).parse()
    }

    /// MAC address of the first network card: locally administered, ending in the index.
    pub fn mac(&self) -> [u8; 6] {
        [0x02, 0, 0, 0, 0, self.index.get()]
    }

    /// The guest's address, the second of its network: `10.<index>.0.2` by default.
    pub fn guest(&self) -> Ipv4Addr {
        self.subnet.guest()
    }

    /// The host's address on the bridge, which is the guest's gateway: the first of the network,
    /// `10.<index>.0.1/24` by default.
    pub fn gateway(&self) -> Ipv4Net {
        self.subnet.gateway()
    }

    /// Context id for vsock, `2 + <index>`: 0 to 2 are taken by the hypervisor, loopback and host.
    pub fn cid(&self) -> u32 {
        2u32.saturating_add(u32::from(self.index.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(name: &str) -> SlotNet {
        let name: SlotName = name.parse().unwrap();
        let index = name.index().unwrap();
        SlotNet::new(name, index)
    }

    #[test]
    fn slot_1_has_the_documented_identity() {
        let net = net("slot1");
        assert_eq!(net.bridge().unwrap().as_str(), "br-slot1");
        assert_eq!(net.tap().unwrap().as_str(), "vm-slot1");
        assert_eq!(net.mac(), [2, 0, 0, 0, 0, 1]);
        assert_eq!(net.guest().to_string(), "10.1.0.2");
        assert_eq!(net.gateway().to_string(), "10.1.0.1/24");
        assert_eq!(net.cid(), 3);
    }

    #[test]
    fn slot_255_is_the_last_one_with_an_index() {
        assert_eq!(net("slot255").mac(), [2, 0, 0, 0, 0, 0xff]);
        assert_eq!(net("slot255").cid(), 257);
        for name in ["slot0", "slot007", "slot256", "slot", "web", "slot-1"] {
            assert_eq!(name.parse::<SlotName>().unwrap().index(), None, "{name}");
        }
    }

    #[test]
    fn names_that_are_unsafe_as_a_file_or_host_name_are_rejected() {
        let long = "a".repeat(MAX_SLOT_NAME + 1);
        for name in [
            "", "..", "a/b", "Slot1", "1slot", "slot1-", "a b", "slot1\n", "é", "a.b", &long,
        ] {
            assert!(name.parse::<SlotName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn interface_names_follow_the_kernels_rules() {
        assert!("a".repeat(15).parse::<InterfaceName>().is_ok());
        let error = "vm-a-long-name-1".parse::<InterfaceName>().unwrap_err();
        assert!(matches!(
            error,
            NameError::InterfaceTooLong { length: 16, .. }
        ));
        for name in [
            "", ".", "..", "a/b", "a:b", "a b", "é", "a\0", "a\"", "a\\", "br-*",
        ] {
            assert!(
                matches!(
                    name.parse::<InterfaceName>(),
                    Err(NameError::Interface { .. })
                ),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_long_slot_name_has_no_derived_interface() {
        let net = SlotNet::new(
            "a-long-slot-name".parse().unwrap(),
            SlotIndex::new(9).unwrap(),
        );
        assert!(matches!(net.tap(), Err(NameError::InterfaceTooLong { .. })));
    }

    #[test]
    fn indices_outside_1_to_255_do_not_exist() {
        for number in [i64::MIN, -1, 0, 256, i64::MAX] {
            assert_eq!(SlotIndex::new(number), None);
        }
    }
}
