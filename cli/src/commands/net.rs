//! `net apply`, `net down` and `net status`: the first network card's bridge and tap.

use hostnet::apply;
use hostnet::inspect::{InspectError, Link, LinkKind, inspect};
use hostnet::plan::{Desired, Operation, to_apply, to_remove};
use hostnet::slot::SlotName;
use nix::unistd::User;
use serde::Serialize;

use super::{CommandError, Context, name};
use crate::args::NetCommand;
use crate::config::HostFile;
use crate::exit::Exit;
use crate::output::{Report, or_dash, print, table};
use crate::resolve;

/// Dispatches `net`.
pub(super) fn net(command: &NetCommand, context: &Context) -> Result<Exit, CommandError> {
    match command {
        NetCommand::Apply {
            slot,
            user,
            dry_run,
        } => {
            let host = context.config.host()?;
            let desired = desired(slot, &host, user.as_deref(), context)?;
            let observed = inspect(&desired.bridge, &desired.tap)?;
            let operations = to_apply(&desired, &observed)?;
            execute(
                Done {
                    operations,
                    staying: Vec::new(),
                },
                Mode::of(*dry_run),
                context,
            )
        }
        NetCommand::Down { slot, dry_run } => {
            let desired = desired(slot, &context.config.host()?, None, context)?;
            let observed = inspect(&desired.bridge, &desired.tap)?;
            let (operations, staying) = to_remove(&desired, &observed);
            let staying = staying.iter().map(ToString::to_string).collect();
            execute(
                Done {
                    operations,
                    staying,
                },
                Mode::of(*dry_run),
                context,
            )
        }
        NetCommand::Status { slot } => status(slot.as_deref(), context),
    }
}

/// What the slot's network should be. Only its network tables must be right for that: the network
/// is made before there is anything to boot.
fn desired(
    slot: &str,
    host: &HostFile,
    user: Option<&str>,
    context: &Context,
) -> Result<Desired, CommandError> {
    let loaded = context.config.slot(&name(slot)?)?;
    let (net, nics) = resolve::network(&loaded)?;
    let nic = nics.into_iter().next();
    let (tap, bridge) = nic.map(|nic| (nic.tap, nic.bridge)).unzip();
    let (Some(tap), Some(Some(bridge))) = (tap, bridge) else {
        return Err(CommandError::NoBridge { slot: loaded.name });
    };
    let configured = host.net.user.as_ref().map(|user| user.value.as_str());
    let owner = user.or(configured).map_or(Ok(0), uid)?;
    Ok(Desired {
        bridge,
        tap,
        gateway: net.gateway(),
        owner,
    })
}

/// The number of a user given by number or name.
fn uid(user: &str) -> Result<u32, CommandError> {
    if let Ok(number) = user.parse() {
        return Ok(number);
    }
    let found = User::from_name(user).map_err(|errno| CommandError::Host {
        action: "look up the tap's user",
        source: errno.into(),
    })?;
    let found = found.ok_or_else(|| CommandError::NoUser {
        user: user.to_owned(),
    })?;
    Ok(found.uid.as_raw())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Do it.
    Run,
    /// Only say it.
    Say,
}

impl Mode {
    fn of(dry_run: bool) -> Self {
        if dry_run { Self::Say } else { Self::Run }
    }
}

fn execute(done: Done, mode: Mode, context: &Context) -> Result<Exit, CommandError> {
    if mode == Mode::Run {
        apply::run(&done.operations, |operation| tracing::info!("{operation}"))?;
    }
    print(&done, context.format).map_err(CommandError::on("print the result"))?;
    Ok(Exit::Success)
}

#[derive(Serialize)]
struct Done {
    operations: Vec<Operation>,
    /// Interfaces that someone else made.
    staying: Vec<String>,
}

impl Report for Done {
    fn text(&self) -> String {
        let operations = self.operations.iter().map(ToString::to_string);
        let staying = self
            .staying
            .iter()
            .map(|name| format!("leave {name}: we did not create it"));
        let lines: Vec<String> = operations.chain(staying).collect();
        if lines.is_empty() {
            "Nothing to do".to_owned()
        } else {
            lines.join("\n")
        }
    }
}

fn status(slot: Option<&str>, context: &Context) -> Result<Exit, CommandError> {
    let host = context.config.host()?;
    let names = match slot {
        Some(slot) => vec![name(slot)?],
        None => context.config.slot_names()?,
    };
    let mut rows = Vec::new();
    for name in &names {
        match desired(name.as_str(), &host, None, context) {
            Ok(desired) => rows.push(Row::of(name, &desired)?),
            // One wrong file must not hide the others; `config check` shows what is wrong.
            Err(error) if slot.is_none() => tracing::warn!("Left out {name}: {error}"),
            Err(error) => return Err(error),
        }
    }
    print(&Status { slots: rows }, context.format).map_err(CommandError::on("print the status"))?;
    Ok(Exit::Success)
}

#[derive(Serialize)]
struct Status {
    slots: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    slot: SlotName,
    wanted: Desired,
    bridge: Option<Link>,
    tap: Option<Link>,
    /// Whether `net apply` has nothing to do.
    complete: bool,
}

impl Row {
    fn of(slot: &SlotName, wanted: &Desired) -> Result<Self, InspectError> {
        let observed = inspect(&wanted.bridge, &wanted.tap)?;
        // Whom the tap belongs to is not compared: any user may be right.
        let owner = match observed.tap.as_ref().map(|tap| &tap.kind) {
            Some(LinkKind::Tap {
                owner: Some(owner), ..
            }) => *owner,
            _ => wanted.owner,
        };
        let wanted = Desired {
            owner,
            ..wanted.clone()
        };
        let complete = to_apply(&wanted, &observed).is_ok_and(|operations| operations.is_empty());
        Ok(Self {
            slot: slot.clone(),
            wanted,
            bridge: observed.bridge,
            tap: observed.tap,
            complete,
        })
    }
}

impl Report for Status {
    fn text(&self) -> String {
        let rows = self.slots.iter().map(|row| {
            let state = |link: &Option<Link>| match link {
                None => "absent",
                Some(link) if link.up => "up",
                Some(_) => "down",
            };
            let owner = match row.tap.as_ref().map(|tap| &tap.kind) {
                Some(LinkKind::Tap { owner, .. }) => *owner,
                _ => None,
            };
            [
                row.slot.to_string(),
                format!("{} {}", row.wanted.bridge, state(&row.bridge)),
                format!("{} {}", row.wanted.tap, state(&row.tap)),
                or_dash(owner),
                row.wanted.gateway.to_string(),
                if row.complete {
                    "complete"
                } else {
                    "run `slotvmm net apply`"
                }
                .to_owned(),
            ]
        });
        table(["SLOT", "BRIDGE", "TAP", "OWNER", "GATEWAY", "STATE"], rows)
    }
}
