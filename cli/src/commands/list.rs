//! `list`: every slot that is configured or running.

use std::collections::BTreeSet;

use hostnet::slot::SlotName;
use serde::Serialize;
use vmm::api::VmInfo;

use super::{CommandError, Context};
use crate::client::{Ask, Client, ClientError};
use crate::config::HostFile;
use crate::exit::Exit;
use crate::output::{Report, or_dash, print, table};
use crate::resolve::{Paths, Slot};

/// Prints all slots.
pub(super) fn list(context: &Context) -> Result<Exit, CommandError> {
    let host = context.config.host()?;
    let paths = Paths::of(&host);
    let mut names: BTreeSet<_> = context.config.slot_names()?.into_iter().collect();
    names.extend(with_sockets(&paths));
    let mut slots: Vec<Row> = names.iter().map(|name| row(name, &host, context)).collect();
    slots.sort_by(|left, right| (left.index, &left.slot).cmp(&(right.index, &right.slot)));
    print(&List { slots }, context.format).map_err(CommandError::on("print the list"))?;
    Ok(Exit::Success)
}

/// Slots that have sockets, such as those run from a file that lies elsewhere.
fn with_sockets(paths: &Paths) -> Vec<SlotName> {
    let entries = std::fs::read_dir(&paths.run_dir)
        .into_iter()
        .flatten()
        .flatten();
    let names = entries.filter(|entry| entry.path().join("control.sock").exists());
    names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

#[derive(Serialize)]
struct List {
    slots: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    slot: SlotName,
    index: Option<u8>,
    state: String,
    address: Option<String>,
    vcpus: Option<u8>,
    memory_mib: Option<u64>,
    pid: Option<u32>,
}

fn row(name: &SlotName, host: &HostFile, context: &Context) -> Row {
    let configured = context
        .config
        .slot(name)
        .and_then(|loaded| Slot::resolve(host, &loaded))
        .ok();
    let client = Client::new(name.clone(), Paths::of(host).control_socket(name));
    let running = client.ask::<VmInfo>(Ask::Info);
    let state = match (&running, &configured) {
        (Ok(info), _) => info.state.to_string(),
        (Err(ClientError::NotRunning { .. }), Some(_)) => "off".to_owned(),
        (Err(ClientError::NotRunning { .. }), None) => "misconfigured".to_owned(),
        (Err(ClientError::Denied { .. }), _) => "not ours".to_owned(),
        (Err(_), _) => "not answering".to_owned(),
    };
    let running = running.ok();
    let machine = configured.as_ref().map(|slot| &slot.machine);
    Row {
        slot: name.clone(),
        index: configured.as_ref().map(|slot| slot.index.get()),
        state,
        address: configured
            .as_ref()
            .map(|slot| slot.net().guest().to_string()),
        vcpus: running
            .as_ref()
            .map(|info| info.vcpus)
            .or(machine.map(|machine| machine.vcpus)),
        memory_mib: running
            .as_ref()
            .map(|info| info.memory_mib)
            .or(machine.map(|machine| machine.memory_mib)),
        pid: running.as_ref().map(|info| info.pid),
    }
}

impl Report for List {
    fn text(&self) -> String {
        if self.slots.is_empty() {
            return "No slot is configured or running".to_owned();
        }
        let rows = self.slots.iter().map(|row| {
            [
                row.slot.to_string(),
                row.state.clone(),
                or_dash(row.address.as_ref()),
                or_dash(row.vcpus),
                or_dash(row.memory_mib.map(|mib| format!("{mib} MiB"))),
                or_dash(row.pid),
            ]
        });
        table(
            ["SLOT", "STATE", "ADDRESS", "VCPUS", "MEMORY", "PROCESS"],
            rows,
        )
    }
}
