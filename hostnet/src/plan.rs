//! The operations between what is there and what is wanted. Pure.
//!
//! What this crate makes carries [`MARK`] as its alias. Only marked interfaces are ever removed;
//! an interface of the right name and kind that someone else made is used, completed, and left.

use std::fmt;

use ipnet::Ipv4Net;
use serde::Serialize;

use crate::inspect::{Link, LinkKind, Observed};
use crate::slot::InterfaceName;

/// Alias of the interfaces that this crate made.
pub const MARK: &str = "slotvmm";

/// What a slot's network should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Desired {
    /// The bridge.
    pub bridge: InterfaceName,
    /// The tap in it.
    pub tap: InterfaceName,
    /// The host's address on the bridge.
    pub gateway: Ipv4Net,
    /// User that opens the tap.
    pub owner: u32,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "operation")]
pub enum Operation {
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
    /// Put a tap into a bridge.
    Enslave {
        /// The tap.
        name: InterfaceName,
        /// The bridge.
        bridge: InterfaceName,
    },
    /// Bring an interface up.
    SetUp {
        /// The interface.
        name: InterfaceName,
    },
    /// Remove an interface.
    Delete {
        /// The interface.
        name: InterfaceName,
    },
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateBridge { name } => write!(f, "create bridge {name}"),
            Self::CreateTap { name, owner } => write!(f, "create tap {name} for user {owner}"),
            Self::ChangeOwner { name, owner } => write!(f, "give tap {name} to user {owner}"),
            Self::Mark { name } => write!(f, "mark {name} as ours"),
            Self::AddAddress { name, address } => write!(f, "add {address} to {name}"),
            Self::Enslave { name, bridge } => write!(f, "put {name} into {bridge}"),
            Self::SetUp { name } => write!(f, "bring {name} up"),
            Self::Delete { name } => write!(f, "delete {name}"),
        }
    }
}

/// The operations that bring `observed` to `desired`; none when nothing is to do.
///
/// # Errors
/// When a name is taken by something that cannot serve.
pub fn to_apply(desired: &Desired, observed: &Observed) -> Result<Vec<Operation>, PlanError> {
    let mut operations = Vec::new();
    plan_bridge(desired, observed.bridge.as_ref(), &mut operations)?;
    plan_tap(desired, observed, &mut operations)?;
    Ok(operations)
}

fn plan_bridge(
    desired: &Desired,
    bridge: Option<&Link>,
    operations: &mut Vec<Operation>,
) -> Result<(), PlanError> {
    let name = desired.bridge.clone();
    match bridge.map(|bridge| &bridge.kind) {
        None => {
            operations.push(Operation::CreateBridge { name: name.clone() });
            operations.push(Operation::Mark { name: name.clone() });
        }
        Some(LinkKind::Bridge) => {}
        Some(other) => return Err(PlanError::taken(name, "a bridge", other)),
    }
    if !bridge.is_some_and(|bridge| bridge.addresses.contains(&desired.gateway)) {
        let (name, address) = (name.clone(), desired.gateway);
        operations.push(Operation::AddAddress { name, address });
    }
    if !bridge.is_some_and(|bridge| bridge.up) {
        operations.push(Operation::SetUp { name });
    }
    Ok(())
}

fn plan_tap(
    desired: &Desired,
    observed: &Observed,
    operations: &mut Vec<Operation>,
) -> Result<(), PlanError> {
    let (name, owner) = (desired.tap.clone(), desired.owner);
    let tap = observed.tap.as_ref();
    match tap.map(|tap| &tap.kind) {
        None => {
            operations.push(Operation::CreateTap {
                name: name.clone(),
                owner,
            });
            operations.push(Operation::Mark { name: name.clone() });
        }
        Some(LinkKind::Tap {
            multi_queue: true, ..
        }) => return Err(PlanError::MultiQueue { name }),
        Some(LinkKind::Tap {
            owner: Some(current),
            ..
        }) if *current == owner => {}
        Some(LinkKind::Tap { .. }) => {
            operations.push(Operation::ChangeOwner {
                name: name.clone(),
                owner,
            });
        }
        Some(other) => return Err(PlanError::taken(name, "a tap", other)),
    }
    let bridge = observed.bridge.as_ref().map(|bridge| bridge.index);
    let enslaved_to = tap.and_then(|tap| tap.controller);
    match enslaved_to {
        Some(index) if Some(index) == bridge => {}
        Some(index) => return Err(PlanError::OtherBridge { name, index }),
        None => operations.push(Operation::Enslave {
            name: name.clone(),
            bridge: desired.bridge.clone(),
        }),
    }
    if !tap.is_some_and(|tap| tap.up) {
        operations.push(Operation::SetUp { name });
    }
    Ok(())
}

/// The operations that remove what this crate made, and the interfaces that stay because someone
/// else made them.
pub fn to_remove(desired: &Desired, observed: &Observed) -> (Vec<Operation>, Vec<InterfaceName>) {
    let mut operations = Vec::new();
    let mut staying = Vec::new();
    // The tap first: a bridge that still has ports would take them down with it.
    for (name, link) in [
        (&desired.tap, &observed.tap),
        (&desired.bridge, &observed.bridge),
    ] {
        match link {
            None => {}
            Some(link) if link.alias.as_deref() == Some(MARK) => {
                operations.push(Operation::Delete { name: name.clone() });
            }
            Some(_) => staying.push(name.clone()),
        }
    }
    (operations, staying)
}

/// Why there is no way from what is there to what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The name belongs to something else.
    #[error(
        "Interface {name} exists and is {found}, expected {expected}: remove or rename it, or set another name"
    )]
    Taken {
        /// The interface.
        name: InterfaceName,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The tap was made for several queues, and a slot opens one.
    #[error(
        "Tap {name} was created with multi_queue: remove it with `ip link del {name}`, then apply again"
    )]
    MultiQueue {
        /// The tap.
        name: InterfaceName,
    },
    /// The tap serves another bridge.
    #[error(
        "Tap {name} is in another bridge, interface number {index}: take it out with `ip link set {name} nomaster`"
    )]
    OtherBridge {
        /// The tap.
        name: InterfaceName,
        /// The other bridge.
        index: u32,
    },
}

impl PlanError {
    fn taken(name: InterfaceName, expected: &'static str, found: &LinkKind) -> Self {
        let found = match found {
            LinkKind::Bridge => "a bridge".to_owned(),
            LinkKind::Tap { .. } => "a tap".to_owned(),
            LinkKind::Other(kind) => format!("a {kind}"),
        };
        Self::Taken {
            name,
            expected,
            found,
        }
    }
}
