//! The configuration of our own boots: what the slot's files say, with disks and run directory
//! replaced, and without network cards where they are left out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::super::{CommandError, Context};
use super::cards::Cards;
use crate::resolve::{Disk, Paths, ReadyWhen, Slot};

/// A disk whose image was replaced by a copy.
#[derive(Debug)]
pub(super) struct Replaced {
    /// Which.
    pub(super) position: u8,
    /// Whether it is the slot's data image.
    pub(super) is_data: IsData,
    /// Where the copy is.
    pub(super) path: PathBuf,
}

/// Which table of the slot's file a disk comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IsData {
    /// `[data]`
    Yes,
    /// One of `[[disk]]`
    No,
}

impl Replaced {
    pub(super) fn new(disk: &Disk, path: PathBuf) -> Self {
        let is_data = if disk.id == "data" {
            IsData::Yes
        } else {
            IsData::No
        };
        Self {
            position: disk.position,
            is_data,
            path,
        }
    }
}

/// Writes the configuration to `dir`, whose subdirectory `run` is its run directory.
pub(super) fn write(
    context: &Context,
    argument: &str,
    (slot, replaced, cards): (&Slot, &[Replaced], &Cards),
    dir: &Path,
) -> Result<(), CommandError> {
    let host = context.config.host_path()?;
    let own = context.load(argument)?.path;
    let net_dir = Paths::of(&context.config.host()?).net_dir;
    let write = || {
        let mut host = read(host.as_deref())?;
        host.insert("run_dir".to_owned(), json!(dir.join("run")));
        // Defaults of directories do not follow the run directory.
        host.insert("cache_dir".to_owned(), json!(slot.paths.cache_dir));
        let mut file = read(own.as_deref())?;
        patch(&mut file, slot, replaced);
        if cards.are_in() {
            leave_network(&mut host, &mut file, &net_dir);
        } else {
            file.insert("net".to_owned(), json!([]));
        }
        fs::create_dir_all(dir.join("slots"))?;
        fs::create_dir_all(dir.join("run"))?;
        fs::write(dir.join("host.json"), Value::from(host).to_string())?;
        let name = format!("slots/{}.json", slot.name);
        fs::write(dir.join(name), Value::from(file).to_string())
    };
    write().map_err(CommandError::on("write the configuration of the boots"))
}

/// Boots look at what was done to the slot's network, as they always do, and do nothing to it: theirs is
/// complete.
fn leave_network(host: &mut Map<String, Value>, file: &mut Map<String, Value>, net_dir: &Path) {
    let net = host.entry("net").or_insert_with(|| json!({}));
    if let Some(net) = net.as_object_mut() {
        net.insert("state_dir".to_owned(), json!(net_dir));
        net.remove("auto");
    }
    let cards = file.get_mut("net").and_then(Value::as_array_mut);
    for card in cards.into_iter().flatten() {
        card.as_object_mut().and_then(|card| card.remove("auto"));
    }
}

/// A file as a value; an absent one is empty. It was read before, so it is well-formed.
fn read(path: Option<&Path>) -> io::Result<Map<String, Value>> {
    let Some(path) = path else {
        return Ok(Map::new());
    };
    let text = fs::read_to_string(path)?;
    let is_json = path
        .extension()
        .is_some_and(|extension| extension == "json");
    if is_json {
        serde_json::from_str(&text).map_err(io::Error::other)
    } else {
        toml::from_str(&text).map_err(io::Error::other)
    }
}

fn patch(file: &mut Map<String, Value>, slot: &Slot, replaced: &[Replaced]) {
    file.insert("index".to_owned(), json!(slot.index.get()));
    if let ReadyWhen::Tcp(_) = slot.ready.when {
        // Nobody connects to the guests of peers.
        file.insert("ready".to_owned(), json!({ "when": "none" }));
    }
    for disk in replaced {
        match disk.is_data {
            IsData::Yes => {
                let data = file.entry("data").or_insert_with(|| json!({}));
                if let Some(data) = data.as_object_mut() {
                    data.insert("path".to_owned(), json!(disk.path));
                }
            }
            IsData::No => {
                let disks = file.get_mut("disk").and_then(Value::as_array_mut);
                let here = |table: &&mut Value| table["position"] == json!(disk.position);
                if let Some(table) = disks.into_iter().flatten().find(here) {
                    table["path"] = json!(disk.path);
                }
            }
        }
    }
}
