//! What is, beside what should be. Pure.

use serde::Serialize;

use crate::inspect::{Link, LinkKind, Observed, TapFlags};
use crate::plan::{World, sysctls};
use crate::policy::{HostSpec, SlotSpec};
use crate::ruleset;

/// One thing that can be as it should be, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// What it is about.
    pub what: String,
    /// What should be.
    pub expected: String,
    /// What is.
    pub actual: String,
    /// Whether the two differ.
    pub drift: bool,
}

impl Fact {
    fn new(what: String, expected: impl ToString, actual: impl ToString) -> Self {
        let (expected, actual) = (expected.to_string(), actual.to_string());
        let drift = expected != actual;
        Self {
            what,
            expected,
            actual,
            drift,
        }
    }
}

/// The facts about bridge and tap of one slot.
pub fn of_links(slot: &SlotSpec, observed: &Observed) -> Vec<Fact> {
    let mut facts = Vec::new();
    let what = format!("bridge {}", slot.bridge);
    let bridge = observed.bridge.as_ref();
    facts.push(Fact::new(what.clone(), "bridge", kind(bridge)));
    if let Some(bridge) = bridge {
        let gateway = slot.subnet.gateway();
        let list = |addresses: &[ipnet::Ipv4Net]| {
            let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            if texts.is_empty() {
                "none".to_owned()
            } else {
                texts.join(", ")
            }
        };
        let addresses = &bridge.addresses;
        let actual = if addresses.contains(&gateway) {
            gateway.to_string()
        } else {
            list(addresses)
        };
        facts.push(Fact::new(format!("{what} address"), gateway, actual));
        facts.push(Fact::new(format!("{what} state"), "up", state(bridge)));
    }
    let what = format!("tap {}", slot.tap);
    let tap = observed.tap.as_ref();
    facts.push(Fact::new(what.clone(), "tap", kind(tap)));
    if let Some(tap) = tap {
        if let LinkKind::Tap { owner, flags } = &tap.kind {
            let owner = owner.map_or_else(|| "root".to_owned(), |owner| owner.to_string());
            facts.push(Fact::new(format!("{what} owner"), slot.owner, owner));
            facts.push(Fact::new(format!("{what} flags"), TapFlags::OURS, flags));
        }
        let actual = match (tap.controller, bridge) {
            (None, _) => "no bridge".to_owned(),
            (Some(index), Some(bridge)) if bridge.index == index => slot.bridge.to_string(),
            (Some(index), _) => format!("interface number {index}"),
        };
        facts.push(Fact::new(format!("{what} in"), &slot.bridge, actual));
        facts.push(Fact::new(format!("{what} state"), "up", state(tap)));
    }
    facts
}

fn kind(link: Option<&Link>) -> String {
    match link.map(|link| &link.kind) {
        None => "absent".to_owned(),
        Some(LinkKind::Bridge) => "bridge".to_owned(),
        Some(LinkKind::Tap { .. }) => "tap".to_owned(),
        Some(LinkKind::Other(kind)) => kind.clone(),
    }
}

fn state(link: &Link) -> &'static str {
    if link.up { "up" } else { "down" }
}

/// The facts about what slots share: settings of the kernel and rules. `listing` is what the kernel
/// has for rules, or nothing when we may not look.
pub fn of_host(
    host: &HostSpec,
    slots: &[SlotSpec],
    world: &World,
    listing: Option<&str>,
) -> Vec<Fact> {
    let mut facts: Vec<Fact> = sysctls(host, slots)
        .iter()
        .map(|sysctl| {
            let actual = match world.sysctls.get(sysctl) {
                Some(true) => "on",
                Some(false) => "off",
                None => "absent",
            };
            Fact::new(sysctl.to_string(), "on", actual)
        })
        .collect();
    let active: Vec<SlotSpec> = world.journal.slots.values().cloned().collect();
    let applied = slots
        .iter()
        .all(|slot| world.journal.slots.get(&slot.name) == Some(slot))
        && world.journal.ruleset == ruleset::text(host, &active);
    let expected = if applied {
        "as configured"
    } else {
        "as applied last"
    };
    facts.push(Fact::new(
        "rules, configuration".to_owned(),
        "as configured",
        expected,
    ));
    if let Some(listing) = listing {
        let actual = match listing {
            "" => "absent",
            same if same == world.journal.listing => "as loaded",
            _ => "changed by someone else",
        };
        facts.push(Fact::new("rules, kernel".to_owned(), "as loaded", actual));
    }
    facts
}
