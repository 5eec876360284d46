//! `config check` and `config show`.

use std::error::Error;

use serde::Serialize;

use super::{CommandError, Context};
use crate::args::ConfigCommand;
use crate::config::{ConfigError, HostFile, LoadedSlot, Problem};
use crate::exit::Exit;
use crate::output::{Report, or_dash, pairs, print, table};
use crate::resolve::{self, BootSource, Disk, Slot, Use, network, unique};

/// Dispatches `config`.
pub(super) fn config(command: &ConfigCommand, context: &Context) -> Result<Exit, CommandError> {
    match command {
        ConfigCommand::Check { slot } => check(slot.as_deref(), context),
        ConfigCommand::Show { slot } => show(slot, context),
    }
}

/// Checks one slot, or all of them and that they do not contradict each other.
fn check(slot: Option<&str>, context: &Context) -> Result<Exit, CommandError> {
    let mut report = Checked {
        slots: Vec::new(),
        problems: Vec::new(),
    };
    let host = report.keep(context.config.host()).unwrap_or_default();
    let loaded: Vec<LoadedSlot> = match slot {
        Some(slot) => match context.load(slot) {
            Err(CommandError::Config(error)) => report.keep(Err(error)).into_iter().collect(),
            loaded => vec![loaded?],
        },
        None => load_all(context, &mut report),
    };
    let slots: Vec<Slot> = loaded
        .iter()
        .filter_map(|loaded| report.keep(Slot::resolve(&host, loaded)))
        .collect();
    let networks = networks(&host, &loaded);
    // Both find taps and addresses that are used twice; these know the place.
    let others = unique::across(&slots).into_iter().filter(|problem| {
        !networks
            .iter()
            .any(|known| known.message == problem.message)
    });
    report.problems.extend(others);
    report.problems.extend(networks);
    report
        .slots
        .extend(slots.iter().map(|slot| slot.name.to_string()));
    print(&report, context.format).map_err(CommandError::on("print the result"))?;
    Ok(if report.problems.is_empty() {
        Exit::Success
    } else {
        Exit::Config
    })
}

/// What is wrong with the networks of slots beside each other. What is wrong with one alone has
/// been reported.
fn networks(host: &HostFile, loaded: &[LoadedSlot]) -> Vec<Problem> {
    let specs: Vec<_> = loaded
        .iter()
        .filter_map(|loaded| {
            let (network, nics) = resolve::network(host, loaded).ok()?;
            Some((loaded, network.spec(&nics, 0)?))
        })
        .collect();
    let both: Vec<_> = specs.iter().map(|(loaded, spec)| (*loaded, spec)).collect();
    let mut problems = network::check_host(host);
    problems.extend(network::across(&both));
    problems
}

fn load_all(context: &Context, report: &mut Checked) -> Vec<LoadedSlot> {
    let names = report.keep(context.config.slot_names()).unwrap_or_default();
    names
        .iter()
        .filter_map(|name| report.keep(context.config.slot(name)))
        .collect()
}

#[derive(Serialize)]
struct Checked {
    slots: Vec<String>,
    problems: Vec<Problem>,
}

impl Checked {
    /// The value, or its problems added to the others.
    fn keep<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        match result {
            Ok(value) => return Some(value),
            Err(ConfigError::Invalid { problems }) => self.problems.extend(problems),
            Err(error) => {
                let message = match error.source() {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                };
                self.problems.push(Problem {
                    at: None,
                    key: String::new(),
                    message,
                });
            }
        }
        None
    }
}

impl Report for Checked {
    fn text(&self) -> String {
        let mut lines: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        lines.push(match (self.slots.as_slice(), self.problems.len()) {
            ([], 0) => "No problems; no slot has a file".to_owned(),
            (slots, 0) => format!("No problems in {}", slots.join(", ")),
            (_, 1) => "1 problem".to_owned(),
            (_, count) => format!("{count} problems"),
        });
        lines.join("\n")
    }
}

fn show(slot: &str, context: &Context) -> Result<Exit, CommandError> {
    let (_, slot) = context.slot(slot)?;
    print(&slot, context.format).map_err(CommandError::on("print the configuration"))?;
    Ok(Exit::Success)
}

impl Report for Slot {
    fn text(&self) -> String {
        let net = self.net();
        let source = match &self.boot.source {
            BootSource::Bootstrap { image, .. } => format!("bootstrap {}", image.display()),
            BootSource::Toplevel { path } => format!("toplevel {}", path.display()),
            BootSource::Files { kernel, .. } => format!("kernel {}", kernel.display()),
        };
        let about = pairs([
            (
                "slot",
                format!("{} (index {})", self.name, self.index.get()),
            ),
            (
                "address",
                format!("{}, gateway {}", net.guest(), net.gateway()),
            ),
            (
                "machine",
                format!(
                    "{} vCPUs, {} MiB",
                    self.machine.vcpus, self.machine.memory_mib
                ),
            ),
            ("UUID", self.machine.uuid.to_string()),
            ("boots", source),
            ("profile", self.boot.profile.to_string()),
            ("parameters", self.boot.params.join(" ")),
            ("control", self.paths.control_socket.display().to_string()),
            ("console", self.paths.console_socket.display().to_string()),
        ]);
        format!("{about}\n\n{}\n\n{}", disks(self), nics(self))
    }
}

fn disks(slot: &Slot) -> String {
    let rows = slot.disks.iter().map(|disk| {
        let usage = if disk.create.is_some() {
            "writable, made when absent"
        } else {
            usage(disk)
        };
        let serial = or_dash(disk.serial.as_ref());
        [
            disk.position.to_string(),
            disk.id.clone(),
            disk.path.display().to_string(),
            usage.to_owned(),
            serial,
        ]
    });
    table(["POSITION", "DISK", "PATH", "USE", "SERIAL"], rows)
}

fn usage(disk: &Disk) -> &'static str {
    match disk.usage {
        Use::ReadOnly => "read-only",
        Use::Exclusive => "writable",
    }
}

fn nics(slot: &Slot) -> String {
    let rows = slot.nics.iter().map(|nic| {
        let bridge = or_dash(nic.bridge.as_ref());
        [
            nic.position.to_string(),
            nic.id.clone(),
            nic.tap.to_string(),
            bridge,
            nic.mac_text(),
        ]
    });
    table(["POSITION", "NETWORK", "TAP", "BRIDGE", "MAC"], rows)
}
