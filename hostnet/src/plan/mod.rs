//! The operations between what is there and what is wanted. Pure.
//!
//! What this crate makes is noted in the [`Journal`] before it is made, and carries [`MARK`] as its
//! alias afterwards. Only such interfaces are ever removed; an interface of the right name and
//! kind that someone else made is used, completed, and left.
//!
//! Order matters. Applying loads the rules first, so that no guest is ever reachable without them,
//! then makes links, then lets packets be forwarded. Removing goes the other way round.

mod links;
mod operation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use self::operation::Operation;
use crate::inspect::{LinkKind, Observed, TapFlags};
use crate::journal::{Changed, Journal};
use crate::policy::{HostSpec, SlotSpec};
use crate::ruleset;
use crate::slot::{InterfaceName, SlotName};
use crate::sysctl::{Setting, Sysctl};

/// Alias of the interfaces that this crate made.
pub const MARK: &str = "slotvmm";

/// What there is.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// What we did before.
    pub journal: Journal,
    /// Links of each slot that the plan is about, by its name.
    pub links: BTreeMap<SlotName, Observed>,
    /// Settings that matter and are there.
    pub sysctls: BTreeMap<Sysctl, bool>,
    /// Our tables as the kernel lists them.
    pub listing: String,
}

impl World {
    /// Whether the rules in the kernel are those that we loaded last.
    pub fn rules_are_untouched(&self) -> bool {
        !self.listing.is_empty() && self.listing == self.journal.listing
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The steps, in order.
    pub operations: Vec<Operation>,
    /// Interfaces that someone else made, and that are therefore left.
    pub staying: Vec<InterfaceName>,
    /// What is to be remembered, before anything is done and after.
    #[serde(skip)]
    pub journal: Journal,
}

/// Settings that slots need, with those of the interfaces they share.
pub fn sysctls<'a>(
    host: &HostSpec,
    slots: impl IntoIterator<Item = &'a SlotSpec>,
) -> BTreeSet<Sysctl> {
    let mut needed = BTreeSet::new();
    let mut need = |interface: &InterfaceName, setting| {
        let interface = interface.clone();
        needed.insert(Sysctl { interface, setting });
    };
    let mut any = false;
    for slot in slots {
        any = true;
        need(&slot.bridge, Setting::Forwarding);
        if needs_loopback(host, slot) {
            need(&slot.bridge, Setting::RouteLocalnet);
        }
    }
    if any {
        for interface in host.uplink.iter().chain(&host.trusted) {
            need(interface, Setting::Forwarding);
        }
    }
    needed
}

fn needs_loopback(host: &HostSpec, slot: &SlotSpec) -> bool {
    let redirected = host.dnat.iter().any(|redirect| {
        let mine = redirect.slots.is_empty() || redirect.slots.contains(&slot.name);
        mine && redirect.to.ip().is_loopback()
    });
    redirected || !slot.publish.is_empty()
}

/// The operations that bring up `wanted`; none when nothing is to do. Slots that are up already
/// and not among them stay as they are, and keep their rules.
///
/// # Errors
/// When a name is taken by something that cannot serve.
pub fn to_apply(host: &HostSpec, wanted: &[SlotSpec], world: &World) -> Result<Plan, PlanError> {
    let mut journal = world.journal.clone();
    for slot in wanted {
        journal.slots.insert(slot.name.clone(), slot.clone());
    }
    let mut operations = Vec::new();
    let slots: Vec<SlotSpec> = journal.slots.values().cloned().collect();
    let ruleset = ruleset::text(host, &slots);
    if !slots.is_empty() && (journal.ruleset != ruleset || !world.rules_are_untouched()) {
        journal.ruleset.clone_from(&ruleset);
        // Filled in once they are there.
        journal.listing.clear();
        let slots = journal.slots.keys().cloned().collect();
        operations.push(Operation::LoadRules { slots, ruleset });
    }
    let nothing = Observed::default();
    for slot in wanted {
        let observed = world.links.get(&slot.name).unwrap_or(&nothing);
        operations.extend(links::to_apply(slot, observed, &mut journal)?);
    }
    let needed = sysctls(host, wanted);
    operations.extend(to_switch(&needed, wanted, world, &mut journal));
    Ok(Plan {
        operations,
        staying: Vec::new(),
        journal,
    })
}

/// Settings to switch on, and those of our own bridges to switch off again.
fn to_switch(
    needed: &BTreeSet<Sysctl>,
    wanted: &[SlotSpec],
    world: &World,
    journal: &mut Journal,
) -> Vec<Operation> {
    let mut operations = Vec::new();
    for sysctl in needed {
        let found = world.sysctls.get(sysctl).copied();
        let new = journal.links.contains(&sysctl.interface);
        // An interface that is not there, and that we do not make, has no settings.
        if found == Some(true) || (found.is_none() && !new) {
            continue;
        }
        if !new
            && !journal
                .sysctls
                .iter()
                .any(|changed| changed.sysctl == *sysctl)
        {
            let sysctl = sysctl.clone();
            journal.sysctls.push(Changed { sysctl, was: false });
        }
        let sysctl = sysctl.clone();
        operations.push(Operation::Set { sysctl, on: true });
    }
    for slot in wanted {
        let sysctl = Sysctl {
            interface: slot.bridge.clone(),
            setting: Setting::RouteLocalnet,
        };
        let on = world.sysctls.get(&sysctl) == Some(&true);
        if on && !needed.contains(&sysctl) && journal.links.contains(&slot.bridge) {
            operations.push(Operation::Set { sysctl, on: false });
        }
    }
    operations
}

/// The operations that remove `slots`, and with the last one everything that we made.
pub fn to_remove(host: &HostSpec, slots: &[SlotSpec], world: &World) -> Plan {
    let mut journal = world.journal.clone();
    let mut operations = Vec::new();
    let mut staying = Vec::new();
    let nothing = Observed::default();
    for slot in slots {
        let observed = world.links.get(&slot.name).unwrap_or(&nothing);
        let (removing, left) = links::to_remove(slot, observed, &world.journal);
        operations.extend(removing);
        staying.extend(left);
        journal.slots.remove(&slot.name);
        for name in [&slot.bridge, &slot.tap] {
            journal.forget(name);
        }
    }
    let needed = sysctls(host, journal.slots.values());
    let (keep, restore): (Vec<_>, Vec<_>) = std::mem::take(&mut journal.sysctls)
        .into_iter()
        .partition(|changed| needed.contains(&changed.sysctl));
    journal.sysctls = keep;
    for Changed { sysctl, was } in restore {
        // What someone else set since is theirs.
        if world.sysctls.get(&sysctl) == Some(&!was) {
            operations.push(Operation::Set { sysctl, on: was });
        }
    }
    let remaining: Vec<SlotSpec> = journal.slots.values().cloned().collect();
    let ruleset = ruleset::text(host, &remaining);
    if remaining.is_empty() {
        journal = Journal::default();
        if !world.listing.is_empty() {
            operations.push(Operation::RemoveRules { ruleset });
        }
    } else if journal.ruleset != ruleset || !world.rules_are_untouched() {
        journal.ruleset.clone_from(&ruleset);
        journal.listing.clear();
        let slots = journal.slots.keys().cloned().collect();
        operations.push(Operation::LoadRules { slots, ruleset });
    }
    Plan {
        operations,
        staying,
        journal,
    }
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
    /// The tap was made with other flags, and someone uses it or made it.
    #[error(
        "Tap {name} was created with {flags}, expected {}: stop its user, remove it with \
         `ip link del {name}`, then apply again",
        TapFlags::OURS
    )]
    Flags {
        /// The tap.
        name: InterfaceName,
        /// Its flags.
        flags: TapFlags,
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
