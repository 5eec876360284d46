//! One step of changing the host, and what it says of itself.

use std::fmt;

use ipnet::Ipv4Net;
use serde::Serialize;

use crate::slot::{InterfaceName, SlotName};
use crate::sysctl::Sysctl;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "operation")]
pub enum Operation {
    /// Replace our rules, in one transaction.
    LoadRules {
        /// The slots they are for.
        slots: Vec<SlotName>,
        /// The transaction, as `nft` reads it.
        ruleset: String,
    },
    /// Remove our rules.
    RemoveRules {
        /// The transaction, as `nft` reads it.
        ruleset: String,
    },
    /// Make a bridge.
    CreateBridge {
        /// Its name.
        name: InterfaceName,
    },
    /// Make a persistent tap.
    CreateTap {
        /// Its name.
        name: InterfaceName,
        /// User that may open it.
        owner: u32,
    },
    /// Give an existing tap to a user.
    ChangeOwner {
        /// The tap.
        name: InterfaceName,
        /// The user.
        owner: u32,
    },
    /// Note that an interface is ours.
    Mark {
        /// The interface.
        name: InterfaceName,
    },
    /// Add an address.
    AddAddress {
        /// The interface.
        name: InterfaceName,
        /// The address.
        address: Ipv4Net,
    },
    /// Remove an address that we added.
    RemoveAddress {
        /// The interface.
        name: InterfaceName,
        /// The address.
        address: Ipv4Net,
    },
    /// Put a tap into a bridge.
    Enslave {
        /// The tap.
        name: InterfaceName,
        /// The bridge.
        bridge: InterfaceName,
    },
    /// Take a tap out of the bridge that we put it into.
    Release {
        /// The tap.
        name: InterfaceName,
    },
    /// Bring an interface up.
    SetUp {
        /// The interface.
        name: InterfaceName,
    },
    /// Take an interface down that we brought up.
    SetDown {
        /// The interface.
        name: InterfaceName,
    },
    /// Remove an interface.
    Delete {
        /// The interface.
        name: InterfaceName,
    },
    /// Switch a setting of the kernel.
    Set {
        /// The setting.
        sysctl: Sysctl,
        /// Whether it is to be on.
        on: bool,
    },
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoadRules { slots, .. } => {
                let slots: Vec<&str> = slots.iter().map(SlotName::as_str).collect();
                write!(f, "load the rules of {}", slots.join(", "))
            }
            Self::RemoveRules { .. } => f.write_str("remove our rules"),
            Self::CreateBridge { name } => write!(f, "create bridge {name}"),
            Self::CreateTap { name, owner } => write!(f, "create tap {name} for user {owner}"),
            Self::ChangeOwner { name, owner } => write!(f, "give tap {name} to user {owner}"),
            Self::Mark { name } => write!(f, "mark {name} as ours"),
            Self::AddAddress { name, address } => write!(f, "add {address} to {name}"),
            Self::RemoveAddress { name, address } => write!(f, "remove {address} from {name}"),
            Self::Enslave { name, bridge } => write!(f, "put {name} into {bridge}"),
            Self::Release { name } => write!(f, "take {name} out of its bridge"),
            Self::SetUp { name } => write!(f, "bring {name} up"),
            Self::SetDown { name } => write!(f, "take {name} down"),
            Self::Delete { name } => write!(f, "delete {name}"),
            Self::Set { sysctl, on: true } => write!(f, "switch on {sysctl}"),
            Self::Set { sysctl, on: false } => write!(f, "switch off {sysctl}"),
        }
    }
}
