//! `net apply`, `net plan`, `net down`, and what `run` does about its slot's network.

use hostnet::apply;
use hostnet::check::check;
use hostnet::facts::Fact;
use hostnet::foreign;
use hostnet::journal::JournalDir;
use hostnet::nft::{self, NftError};
use hostnet::plan::{Plan, World, to_apply, to_remove};
use hostnet::policy::{HostSpec, SlotSpec};
use hostnet::world::look;
use serde::Serialize;

use super::super::{CommandError, Context, name};
use super::wanted::{self, Wanted};
use crate::config::HostFile;
use crate::exit::Exit;
use crate::output::{Format, Report, print, print_text};
use crate::resolve::{Paths, Slot};

/// Whether a plan is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Do it.
    Run,
    /// Only say it.
    Say,
}

impl Mode {
    pub(super) fn of(dry_run: bool) -> Self {
        if dry_run { Self::Say } else { Self::Run }
    }
}

/// Brings up what is wanted, and says what others have in its way.
pub(super) fn apply(wanted: &Wanted, mode: Mode, context: &Context) -> Result<Exit, CommandError> {
    if wanted.host.uplink.is_none() && !wanted.slots.is_empty() {
        tracing::warn!(
            "There is no default route: guests reach this host only, until there is one or \
             `net.uplink` is set, and `slotvmm net apply` runs again"
        );
    }
    let plan = |world: &World| Ok(to_apply(&wanted.host, &wanted.slots, world)?);
    execute(
        &wanted.host,
        &wanted.slots,
        &wanted.journal,
        (mode, context.format),
        plan,
    )?;
    if mode == Mode::Run {
        say_findings(wanted)?;
    }
    Ok(Exit::Success)
}

fn say_findings(wanted: &Wanted) -> Result<(), CommandError> {
    let world = look(&wanted.host, &wanted.slots, &wanted.journal)?;
    for finding in foreign::find(&wanted.host, &wanted.slots, &world)? {
        tracing::warn!(
            "Found {}: {}; {}",
            finding.found,
            finding.effect,
            finding.remedy
        );
    }
    Ok(())
}

/// Removes what was made for the slots of these names, or all of it. What to remove is taken from
/// the journal; a slot that it does not know may still have interfaces that carry our mark.
pub(super) fn down(names: &[String], mode: Mode, context: &Context) -> Result<Exit, CommandError> {
    let file = context.config.host()?;
    let journal = JournalDir::new(Paths::of(&file).net_dir);
    let known = journal.read()?.slots;
    let mut slots = Vec::new();
    for text in names {
        match known.get(&name(text)?) {
            Some(slot) => slots.push(slot.clone()),
            None => slots.extend(Wanted::of(std::slice::from_ref(text), None, context)?.slots),
        }
    }
    if names.is_empty() {
        let configured = match Wanted::of(&[], None, context) {
            Ok(wanted) => wanted.slots,
            // A wrong file must not keep what was made from being removed.
            Err(error) => {
                tracing::warn!("Removing only what is noted as made: {error}");
                Vec::new()
            }
        };
        slots.extend(known.values().cloned());
        slots.extend(
            configured
                .into_iter()
                .filter(|slot| !known.contains_key(&slot.name)),
        );
    }
    let host = wanted::host(&file)?;
    let plan = |world: &World| Ok(to_remove(&host, &slots, world));
    execute(&host, &slots, &journal, (mode, context.format), plan)?;
    Ok(Exit::Success)
}

/// Makes a plan and carries it out, or only says it.
fn execute(
    host: &HostSpec,
    slots: &[SlotSpec],
    journal: &JournalDir,
    (mode, format): (Mode, Format),
    plan: impl FnOnce(&World) -> Result<Plan, CommandError>,
) -> Result<(), CommandError> {
    let failed = CommandError::on("print the result");
    if mode == Mode::Say {
        let mut world = look(host, slots, journal)?;
        world.listing = listing(&world)?;
        let plan = plan(&world)?;
        return print(&Done(plan), format).map_err(failed);
    }
    let lock = journal.lock()?;
    let mut world = look(host, slots, journal)?;
    world.listing = nft::listing()?;
    let plan = plan(&world)?;
    let done = Done(plan.clone());
    let mut printed = Ok(());
    apply::run(plan, journal, &lock, |operation| {
        // What is done is said at once: a step that fails later does not undo it.
        if format == Format::Text && printed.is_ok() {
            printed = print_text(&operation.to_string());
        }
    })?;
    printed.map_err(&failed)?;
    let text = done.rest();
    match format {
        Format::Json => print(&done, format).map_err(failed),
        Format::Text if text.is_empty() => Ok(()),
        Format::Text => print_text(&text).map_err(failed),
    }
}

/// The rules in the kernel; to whoever may not see them they are as they were loaded.
fn listing(world: &World) -> Result<String, CommandError> {
    match nft::listing() {
        Err(NftError::Denied { .. }) => {
            tracing::warn!("The rules in the kernel are not compared: this needs CAP_NET_ADMIN");
            Ok(world.journal.listing.clone())
        }
        listing => Ok(listing?),
    }
}

#[derive(Serialize)]
struct Done(Plan);

impl Done {
    /// What is to be said besides the operations.
    fn rest(&self) -> String {
        let staying = self.0.staying.iter();
        let lines: Vec<String> = staying
            .map(|name| format!("leave {name}: we did not create it"))
            .collect();
        if lines.is_empty() && self.0.operations.is_empty() {
            "Nothing to do".to_owned()
        } else {
            lines.join("\n")
        }
    }
}

impl Report for Done {
    fn text(&self) -> String {
        let operations = self.0.operations.iter().map(ToString::to_string);
        let mut lines: Vec<String> = operations.collect();
        lines.push(self.rest());
        lines.join("\n")
    }
}

/// Checks the network of a slot that is about to run; with `net.auto`, brings it up.
pub(crate) fn ensure(file: &HostFile, slot: &Slot) -> Result<(), CommandError> {
    let Some(spec) = slot.network.spec(&slot.nics, 0) else {
        return Ok(());
    };
    let journal = JournalDir::new(Paths::of(file).net_dir);
    let lacks = check(&spec, &journal)?;
    if lacks.nothing() {
        return Ok(());
    }
    if slot.network.auto {
        return bring_up(file, slot, journal);
    }
    if lacks.links.is_empty() {
        tracing::warn!(
            "Slot {0} has no rules: nothing keeps its guest from other slots; run `slotvmm net apply {0}` as root",
            slot.name
        );
        return Ok(());
    }
    // A tap that is absent or unfit is told apart, with its own remedies, where it is opened.
    let tap = format!("tap {}", spec.tap);
    if lacks.links.iter().any(|fact| fact.what == tap) {
        return Ok(());
    }
    Err(CommandError::NetworkIncomplete {
        slot: slot.name.clone(),
        lacks: list(&lacks.links),
    })
}

fn list(facts: &[Fact]) -> String {
    let facts = facts.iter().map(|fact| {
        format!(
            "{}: expected {}, found {}",
            fact.what, fact.expected, fact.actual
        )
    });
    facts.collect::<Vec<_>>().join("; ")
}

/// What `net apply` does for one slot. The tap goes to the user that runs the slot.
fn bring_up(file: &HostFile, slot: &Slot, journal: JournalDir) -> Result<(), CommandError> {
    let owner = rustix::process::geteuid().as_raw();
    let host = wanted::host(file)?;
    let slots: Vec<SlotSpec> = slot.network.spec(&slot.nics, owner).into_iter().collect();
    let lock = journal.lock()?;
    let mut world = look(&host, &slots, &journal)?;
    world.listing = nft::listing()?;
    let plan = to_apply(&host, &slots, &world)?;
    apply::run(plan, &journal, &lock, |operation| {
        tracing::info!("{operation}")
    })?;
    Ok(())
}
