//! From what the files say to what a slot is: every default applied, every conflict found.
//!
//! Pure except for two reads: `/etc/machine-id`, which the UUID of a slot comes from, and symbolic
//! links of disk paths, so that one image under two names is noticed.

mod boot;
mod credentials;
mod disks;
mod limits;
pub(crate) mod network;
mod nics;
mod params;
mod paths;
pub(crate) mod plan;
mod ready;
mod shares;
#[cfg(test)]
mod tests;
pub(crate) mod unique;
mod vsock;

use hostnet::slot::{SlotIndex, SlotName, SlotNet};
use serde::Serialize;
use uuid::Uuid;

pub(crate) use self::boot::{Boot, BootSource};
pub(crate) use self::credentials::{Credential, Credentials, Place};
pub(crate) use self::disks::{Create, Disk, Use};
pub(crate) use self::network::Network;
pub(crate) use self::nics::{Nic, Queues};
pub(crate) use self::paths::{Paths, SlotPaths};
pub(crate) use self::ready::{Ready, ReadyWhen};
pub(crate) use self::shares::{Backend, Share, cache_word, poll_word};
pub(crate) use self::vsock::Vsock;
use crate::config::{ConfigError, ConsoleMode, HostFile, LoadedSlot, Problem, Registers};

/// RAM of a slot that says nothing else.
const DEFAULT_MEMORY_MIB: u64 = 1024;

/// Position of the virtio console, which only some slots have: the last of the network cards' places.
pub(crate) const CONSOLE_POSITION: u8 = 11;

/// Position of the entropy source, behind every disk and network card.
const RNG_POSITION: u8 = 12;

/// Namespace of slot UUIDs on a host that has no machine id. Random, fixed for ever.
const UUID_NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_53a2_9c0e_4b7b_8e55_0c2f_71d4_9a36);

/// A slot with nothing left to guess.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Slot {
    /// Its name.
    pub(crate) name: SlotName,
    /// Its number.
    pub(crate) index: SlotIndex,
    /// vCPUs and memory.
    pub(crate) machine: Machine,
    /// What it boots.
    pub(crate) boot: Boot,
    /// Its disks in order of position.
    pub(crate) disks: Vec<Disk>,
    /// Its network.
    pub(crate) network: Network,
    /// Its network cards in order of position.
    pub(crate) nics: Vec<Nic>,
    /// Its shared directories in order of position.
    pub(crate) shares: Vec<Share>,
    /// Position of the entropy source.
    pub(crate) rng_position: u8,
    /// What its console is.
    pub(crate) console: ConsoleMode,
    /// Its sockets to the host.
    pub(crate) vsock: Option<Vsock>,
    /// When its guest is ready.
    pub(crate) ready: Ready,
    /// Its secrets from the host, without their values.
    pub(crate) credentials: Credentials,
    /// Its places on the host.
    pub(crate) paths: SlotPaths,
}

/// vCPUs, memory, identity.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// vCPUs.
    pub(crate) vcpus: u8,
    /// RAM in MiB.
    pub(crate) memory_mib: u64,
    /// System UUID.
    pub(crate) uuid: Uuid,
    /// How the guest reads its devices' registers.
    pub(crate) registers: Registers,
}

impl Slot {
    /// The names and addresses that follow from name and index.
    pub(crate) fn net(&self) -> SlotNet {
        self.network.net.clone()
    }

    /// Applies every default to what the files say.
    ///
    /// # Errors
    /// When something has no value and no default, or two settings contradict each other.
    pub(crate) fn resolve(host: &HostFile, loaded: &LoadedSlot) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let slot = Self::collect(host, loaded, &mut problems);
        match slot {
            Some(slot) if problems.is_empty() => Ok(slot),
            _ => Err(ConfigError::Invalid { problems }),
        }
    }

    fn collect(host: &HostFile, loaded: &LoadedSlot, problems: &mut Vec<Problem>) -> Option<Self> {
        let index = index(loaded, problems)?;
        let net = network::identity(host, loaded, index);
        let paths = Paths::of(host).slot(&loaded.name, problems);
        let machine = machine(host, loaded);
        let mut nics = nics::resolve(loaded, &net, problems);
        for nic in &mut nics {
            nic.queues = nic.queues.for_vcpus(machine.vcpus);
        }
        let mut boot = boot::resolve(host, loaded, (&net, &nics), problems)?;
        let own = &loaded.file.common.console.mode;
        let mode = own.as_ref().or(host.defaults.console.mode.as_ref());
        let console = mode.map_or_else(ConsoleMode::default, |mode| mode.value);
        if console == ConsoleMode::Hvc {
            params::console_is_hvc(&mut boot);
        }
        let disks = disks::resolve(host, loaded, &paths, &boot, problems);
        let shares = shares::resolve(loaded, machine.vcpus, problems);
        let vsock = vsock::resolve(loaded, index);
        let ready = ready::resolve(loaded, (&net, &nics), vsock.as_ref(), problems);
        match ready.when {
            ReadyWhen::Notify(_) => params::report_to_host(&mut boot.params),
            ReadyWhen::Console(_) => params::keep_messages(&mut boot.defaults),
            ReadyWhen::Tcp(_) | ReadyWhen::None => {}
        }
        let slot = Self {
            name: loaded.name.clone(),
            index,
            machine,
            boot,
            disks,
            network: network::resolve(host, loaded, &net, problems),
            nics,
            shares,
            rng_position: RNG_POSITION,
            console,
            ready,
            credentials: credentials::resolve(loaded, vsock.as_ref(), problems),
            vsock,
            paths,
        };
        unique::within(&slot, loaded, problems);
        plan::check_limits(&slot, host, loaded, problems);
        Some(slot)
    }
}

/// The network part of a slot alone: what `net` needs before there is anything to boot.
///
/// # Errors
/// When the slot has no index, or its network tables are wrong.
pub(crate) fn network(
    host: &HostFile,
    loaded: &LoadedSlot,
) -> Result<(Network, Vec<Nic>), ConfigError> {
    let mut problems = Vec::new();
    let net = index(loaded, &mut problems).map(|index| network::identity(host, loaded, index));
    let resolved = net.map(|net| {
        let network = network::resolve(host, loaded, &net, &mut problems);
        (network, nics::resolve(loaded, &net, &mut problems))
    });
    match resolved {
        Some(resolved) if problems.is_empty() => Ok(resolved),
        _ => Err(ConfigError::Invalid { problems }),
    }
}

/// The index comes from the name `slotN`; any other name needs one of its own.
fn index(loaded: &LoadedSlot, problems: &mut Vec<Problem>) -> Option<SlotIndex> {
    let derived = loaded.name.index();
    match (&loaded.file.index, derived) {
        (Some(set), Some(derived)) if set.value != derived => {
            problems.push(set.problem(format!(
                "expected {}, which the name {} says, found {}: remove the key",
                derived.get(),
                loaded.name,
                set.value.get()
            )));
            None
        }
        (Some(set), _) => Some(set.value),
        (None, Some(derived)) => Some(derived),
        (None, None) => {
            let place = match &loaded.path {
                Some(path) => format!("add a line such as `index = 20` to {}", path.display()),
                None => "add a file for it that has a line such as `index = 20`".to_owned(),
            };
            problems.push(Problem {
                at: None,
                key: "index".to_owned(),
                message: format!(
                    "slot {} needs an index from 1 to 255, only names slot1 to slot255 have one: {place}",
                    loaded.name
                ),
            });
            None
        }
    }
}

fn machine(host: &HostFile, loaded: &LoadedSlot) -> Machine {
    let own = &loaded.file.common.machine;
    let preset = &host.defaults.machine;
    let vcpus = own.vcpus.as_ref().or(preset.vcpus.as_ref());
    let memory = own.memory.as_ref().or(preset.memory.as_ref());
    let registers = own.registers.as_ref().or(preset.registers.as_ref());
    Machine {
        // The schema admits 1 to 254 only.
        vcpus: vcpus.map_or(1, |vcpus| u8::try_from(vcpus.value.0).unwrap_or(u8::MAX)),
        memory_mib: memory.map_or(DEFAULT_MEMORY_MIB, |memory| memory.value.0),
        uuid: own
            .uuid
            .as_ref()
            .map_or_else(|| uuid(&loaded.name), |uuid| uuid.value),
        registers: registers.map_or_else(Registers::default, |registers| registers.value),
    }
}

/// The same slot on the same host always has the same UUID, and no other slot has it.
fn uuid(name: &SlotName) -> Uuid {
    let machine_id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let namespace = Uuid::try_parse(machine_id.trim()).unwrap_or(UUID_NAMESPACE);
    Uuid::new_v5(&namespace, format!("slotvmm/{name}").as_bytes())
}
