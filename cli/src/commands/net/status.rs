//! `net status`: each fact beside what it should be, and what others have in the way.

use std::collections::BTreeSet;

use hostnet::facts::{Fact, of_host, of_links};
use hostnet::foreign::{self, Finding};
use hostnet::inspect::{Link, LinkKind, Observed};
use hostnet::nft::{self, NftError};
use hostnet::plan::World;
use hostnet::policy::SlotSpec;
use hostnet::slot::{InterfaceName, SlotName};
use hostnet::world::look;
use serde::Serialize;

use super::super::{CommandError, Context};
use super::wanted::Wanted;
use crate::exit::Exit;
use crate::output::{Report, or_dash, print, table};

/// Prints the status of the slots of these names, or of all that are configured.
pub(super) fn status(names: &[String], context: &Context) -> Result<Exit, CommandError> {
    let wanted = Wanted::of(names, None, context)?;
    let mut world = look(&wanted.host, &wanted.slots, &wanted.journal)?;
    let mut unknown = None;
    let listing = match nft::listing() {
        Ok(listing) => Some(listing),
        Err(error @ (NftError::Denied { .. } | NftError::Absent)) => {
            unknown = Some(error.to_string());
            None
        }
        Err(error) => return Err(error.into()),
    };
    world.listing = listing.clone().unwrap_or_default();
    let findings = match &listing {
        Some(_) => foreign::find(&wanted.host, &wanted.slots, &world)?,
        None => Vec::new(),
    };
    let rows: Vec<Row> = wanted
        .slots
        .iter()
        .map(|slot| Row::of(slot, &world))
        .collect();
    let configured: BTreeSet<&SlotName> = wanted.slots.iter().map(|slot| &slot.name).collect();
    let left = world
        .journal
        .slots
        .keys()
        .filter(|name| !configured.contains(name));
    // The slots as they were applied, so that `--user` is no drift.
    let applied: Vec<SlotSpec> = wanted
        .slots
        .iter()
        .map(|slot| as_applied(slot, &world))
        .collect();
    let status = Status {
        uplink: wanted.host.uplink.clone(),
        host: of_host(&wanted.host, &applied, &world, listing.as_deref()),
        leftover: if names.is_empty() {
            left.cloned().collect()
        } else {
            Vec::new()
        },
        slots: rows,
        findings,
        unknown,
    };
    print(&status, context.format).map_err(CommandError::on("print the status"))?;
    Ok(Exit::Success)
}

/// The slot with the owner that its tap was given: any user may have been right.
fn as_applied(slot: &SlotSpec, world: &World) -> SlotSpec {
    let applied = world.journal.slots.get(&slot.name);
    SlotSpec {
        owner: applied.map_or(slot.owner, |applied| applied.owner),
        ..slot.clone()
    }
}

#[derive(Serialize)]
struct Status {
    /// The interface towards the world.
    uplink: Option<InterfaceName>,
    slots: Vec<Row>,
    /// Facts about what slots share.
    host: Vec<Fact>,
    /// Slots that are up and no longer configured.
    leftover: Vec<SlotName>,
    /// What others have in the way.
    findings: Vec<Finding>,
    /// Why the rules could not be looked at.
    unknown: Option<String>,
}

#[derive(Serialize)]
struct Row {
    slot: SlotName,
    wanted: SlotSpec,
    facts: Vec<Fact>,
    /// Whether no fact differs.
    complete: bool,
    #[serde(skip)]
    observed: Observed,
}

impl Row {
    fn of(slot: &SlotSpec, world: &World) -> Self {
        let observed = world.links.get(&slot.name).cloned().unwrap_or_default();
        let wanted = as_applied(slot, world);
        let facts = of_links(&wanted, &observed);
        Self {
            slot: slot.name.clone(),
            complete: world.journal.slots.contains_key(&slot.name)
                && !facts.iter().any(|fact| fact.drift),
            wanted,
            facts,
            observed,
        }
    }
}

impl Row {
    fn cells(&self) -> [String; 7] {
        let state = |link: &Option<Link>| match link {
            None => "absent",
            Some(link) if link.up => "up",
            Some(_) => "down",
        };
        let owner = match self.observed.tap.as_ref().map(|tap| &tap.kind) {
            Some(LinkKind::Tap { owner, .. }) => *owner,
            _ => None,
        };
        let complete = if self.complete {
            "complete"
        } else {
            "run `slotvmm net apply`"
        };
        [
            self.slot.to_string(),
            format!("{} {}", self.wanted.bridge, state(&self.observed.bridge)),
            format!("{} {}", self.wanted.tap, state(&self.observed.tap)),
            or_dash(owner),
            self.wanted.subnet.gateway().to_string(),
            self.wanted.egress.to_string(),
            complete.to_owned(),
        ]
    }
}

impl Status {
    /// The facts that are not as they should be.
    fn drift(&self) -> Option<String> {
        let facts = self.slots.iter().flat_map(|row| &row.facts);
        let drifted: Vec<[String; 3]> = facts
            .chain(&self.host)
            .filter(|fact| fact.drift)
            .map(|fact| [&fact.what, &fact.expected, &fact.actual].map(String::clone))
            .collect();
        (!drifted.is_empty()).then(|| table(["DRIFT", "EXPECTED", "ACTUAL"], drifted))
    }
}

impl Report for Status {
    fn text(&self) -> String {
        let heading = [
            "SLOT", "BRIDGE", "TAP", "OWNER", "GATEWAY", "EGRESS", "STATE",
        ];
        let mut parts = vec![
            table(heading, self.slots.iter().map(Row::cells)),
            format!("uplink: {}", or_dash(self.uplink.as_ref())),
        ];
        parts.extend(self.drift());
        parts.extend(self.leftover.iter().map(|slot| {
            format!("{slot} is up and not configured: `slotvmm net down {slot}` removes it")
        }));
        parts.extend(self.findings.iter().map(|finding| {
            let Finding {
                found,
                effect,
                remedy,
            } = finding;
            format!("found {found}\n  {effect}\n  {remedy}")
        }));
        let unknown = self.unknown.iter();
        parts.extend(unknown.map(|reason| format!("rules not compared: {reason}")));
        parts.join("\n\n")
    }
}
