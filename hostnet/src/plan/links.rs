//! Bridge and tap of one slot.

use crate::inspect::{Link, LinkKind, Observed, TapFlags};
use crate::journal::Journal;
use crate::policy::SlotSpec;
use crate::slot::InterfaceName;

use super::{MARK, Operation, PlanError};

/// The operations that bring `observed` to what `slot` should be; notes in `journal` what they
/// create.
pub(super) fn to_apply(
    slot: &SlotSpec,
    observed: &Observed,
    journal: &mut Journal,
) -> Result<Vec<Operation>, PlanError> {
    let mut operations = bridge(slot, observed.bridge.as_ref(), journal)?;
    operations.extend(tap(slot, observed, journal)?);
    Ok(operations)
}

/// Whether an interface is ours: it carries the mark, or we were about to make it when we were
/// interrupted.
fn is_ours(name: &InterfaceName, link: &Link, journal: &Journal) -> bool {
    link.alias.as_deref() == Some(MARK) || journal.links.contains(name)
}

fn bridge(
    slot: &SlotSpec,
    bridge: Option<&Link>,
    journal: &mut Journal,
) -> Result<Vec<Operation>, PlanError> {
    let mut operations = Vec::new();
    let (name, address) = (slot.bridge.clone(), slot.subnet.gateway());
    let ours = bridge.is_none_or(|bridge| is_ours(&name, bridge, journal));
    match bridge.map(|bridge| &bridge.kind) {
        None => operations.push(Operation::CreateBridge { name: name.clone() }),
        Some(LinkKind::Bridge) => {}
        Some(other) => return Err(PlanError::taken(name, "a bridge", other)),
    }
    operations.extend(mark(&name, bridge, journal));
    if !bridge.is_some_and(|bridge| bridge.addresses.contains(&address)) {
        let added = (name.clone(), address);
        if !ours && !journal.addresses.contains(&added) {
            journal.addresses.push(added);
        }
        let name = name.clone();
        operations.push(Operation::AddAddress { name, address });
    }
    // An address of ours that a changed network left behind would still be the host's.
    for address in bridge.iter().flat_map(|bridge| &bridge.addresses) {
        let (name, address) = (name.clone(), *address);
        if ours && address != slot.subnet.gateway() {
            operations.push(Operation::RemoveAddress { name, address });
        }
    }
    operations.extend(raise(&name, bridge, journal));
    Ok(operations)
}

/// Brings an interface up that is not; notes it when the interface is someone else's.
fn raise(name: &InterfaceName, link: Option<&Link>, journal: &mut Journal) -> Option<Operation> {
    if link.is_some_and(|link| link.up) {
        return None;
    }
    if link.is_some_and(|link| !is_ours(name, link, journal)) {
        journal.raised.insert(name.clone());
    }
    Some(Operation::SetUp { name: name.clone() })
}

/// Marks an interface that is ours and does not say so.
fn mark(name: &InterfaceName, link: Option<&Link>, journal: &mut Journal) -> Option<Operation> {
    let unmarked = match link {
        None => true,
        Some(link) => link.alias.as_deref() != Some(MARK) && journal.links.contains(name),
    };
    if link.is_none() {
        journal.links.insert(name.clone());
    }
    unmarked.then(|| Operation::Mark { name: name.clone() })
}

fn tap(
    slot: &SlotSpec,
    observed: &Observed,
    journal: &mut Journal,
) -> Result<Vec<Operation>, PlanError> {
    let (name, owner) = (slot.tap.clone(), slot.owner);
    let mut operations = Vec::new();
    let tap = usable(&name, observed.tap.as_ref(), journal)?;
    if tap.is_none() && observed.tap.is_some() {
        operations.push(Operation::Delete { name: name.clone() });
    }
    let foreign = tap.is_some_and(|tap| !is_ours(&name, tap, journal));
    match tap.map(|tap| &tap.kind) {
        Some(LinkKind::Tap { owner: found, .. }) if *found == Some(owner) => {}
        Some(kind) => {
            if let (
                true,
                LinkKind::Tap {
                    owner: Some(was), ..
                },
            ) = (foreign, kind)
            {
                journal.owners.entry(name.clone()).or_insert(*was);
            }
            let name = name.clone();
            operations.push(Operation::ChangeOwner { name, owner });
        }
        None => operations.push(Operation::CreateTap {
            name: name.clone(),
            owner,
        }),
    }
    operations.extend(mark(&name, tap, journal));
    let bridge = observed.bridge.as_ref().map(|bridge| bridge.index);
    match tap.and_then(|tap| tap.controller) {
        Some(index) if Some(index) == bridge => {}
        Some(index) => return Err(PlanError::OtherBridge { name, index }),
        None => {
            if foreign {
                journal.enslaved.insert(name.clone());
            }
            operations.push(Operation::Enslave {
                name: name.clone(),
                bridge: slot.bridge.clone(),
            });
        }
    }
    operations.extend(raise(&name, tap, journal));
    Ok(operations)
}

/// The tap as far as it can stay; nothing when there is none, or when it has to be made anew
/// because of its flags, which cannot be changed.
fn usable<'a>(
    name: &InterfaceName,
    tap: Option<&'a Link>,
    journal: &Journal,
) -> Result<Option<&'a Link>, PlanError> {
    let Some(link) = tap else { return Ok(None) };
    let LinkKind::Tap { flags, .. } = &link.kind else {
        return Err(PlanError::taken(name.clone(), "a tap", &link.kind));
    };
    if *flags == TapFlags::OURS {
        return Ok(Some(link));
    }
    if link.in_use || !is_ours(name, link, journal) {
        let (name, flags) = (name.clone(), *flags);
        return Err(PlanError::Flags { name, flags });
    }
    Ok(None)
}

/// The operations that remove what we made of a slot's links, and the interfaces that stay because
/// someone else made them.
pub(super) fn to_remove(
    slot: &SlotSpec,
    observed: &Observed,
    journal: &Journal,
) -> (Vec<Operation>, Vec<InterfaceName>) {
    let mut operations = Vec::new();
    let mut staying = Vec::new();
    // The tap first: a bridge that still has ports would take them down with it.
    let links = [(&slot.tap, &observed.tap), (&slot.bridge, &observed.bridge)];
    for (name, link) in links {
        let Some(link) = link else { continue };
        if is_ours(name, link, journal) {
            operations.push(Operation::Delete { name: name.clone() });
        } else {
            operations.extend(to_give_back(name, link, journal));
            staying.push(name.clone());
        }
    }
    (operations, staying)
}

/// The operations that undo what we did to an interface of someone else, as far as it still is so.
fn to_give_back(name: &InterfaceName, link: &Link, journal: &Journal) -> Vec<Operation> {
    let mut operations = Vec::new();
    let added = journal
        .addresses
        .iter()
        .filter(|(on, address)| on == name && link.addresses.contains(address));
    operations.extend(added.map(|(name, address)| Operation::RemoveAddress {
        name: name.clone(),
        address: *address,
    }));
    let name = || name.clone();
    if link.controller.is_some() && journal.enslaved.contains(&name()) {
        operations.push(Operation::Release { name: name() });
    }
    if let Some(owner) = journal.owners.get(&name()).copied() {
        let name = name();
        operations.push(Operation::ChangeOwner { name, owner });
    }
    if link.up && journal.raised.contains(&name()) {
        operations.push(Operation::SetDown { name: name() });
    }
    operations
}
