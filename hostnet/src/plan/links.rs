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
    if !bridge.is_some_and(|bridge| bridge.up) {
        operations.push(Operation::SetUp { name });
    }
    Ok(operations)
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
    let mut tap = observed.tap.as_ref();
    match tap.map(|tap| (tap, &tap.kind)) {
        Some((tap, LinkKind::Tap { flags, .. })) if *flags != TapFlags::OURS => {
            if tap.in_use || !is_ours(&name, tap, journal) {
                return Err(PlanError::Flags {
                    name,
                    flags: *flags,
                });
            }
        }
        Some((_, LinkKind::Tap { .. })) | None => {}
        Some((_, other)) => return Err(PlanError::taken(name, "a tap", other)),
    }
    // The flags of a tap cannot be changed.
    let replaced = tap.filter(|tap| {
        !matches!(
            tap.kind,
            LinkKind::Tap {
                flags: TapFlags::OURS,
                ..
            }
        )
    });
    if replaced.is_some() {
        operations.push(Operation::Delete { name: name.clone() });
        tap = None;
    }
    match tap.map(|tap| &tap.kind) {
        Some(LinkKind::Tap { owner: found, .. }) if *found == Some(owner) => {}
        Some(_) => operations.push(Operation::ChangeOwner {
            name: name.clone(),
            owner,
        }),
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
        None => operations.push(Operation::Enslave {
            name: name.clone(),
            bridge: slot.bridge.clone(),
        }),
    }
    if !tap.is_some_and(|tap| tap.up) {
        operations.push(Operation::SetUp { name });
    }
    Ok(operations)
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
            let added = journal
                .addresses
                .iter()
                .filter(|(on, address)| on == name && link.addresses.contains(address));
            operations.extend(added.map(|(name, address)| Operation::RemoveAddress {
                name: name.clone(),
                address: *address,
            }));
            staying.push(name.clone());
        }
    }
    (operations, staying)
}
