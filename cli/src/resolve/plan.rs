//! From a [`Slot`] to what the `vmm` and `devices` crates take. The only file that knows both.

use devices::blk::{Access, BlkConfig, Discard, Engine};
use devices::console::ConsoleConfig;
use devices::device::DeviceId;
use devices::fs::{FsConfig, OnExit};
use devices::net::{Lease, MacAddr, NetConfig};
use devices::rate_limit::{Limits, Rate};
use devices::registry::{DeviceConfig, Position};
use devices::rng::RngConfig;
use devices::vsock::{Cid, VsockConfig};
use vmm::arch::layout::{MAX_RAM_MIB, MIN_RAM_MIB};
use vmm::boot::{BootConfig, BootSource};
use vmm::config::{Discovery, RegisterReads, VmConfig};

use super::limits::Limit;
use super::{Backend, Boot, CONSOLE_POSITION, Disk, Nic, Share, Slot, Use, Vsock};
use crate::config::{self, ConsoleMode, HostFile, LoadedSlot, Problem};

/// Name of the entropy source.
const RNG_ID: &str = "rng0";

/// Name of the virtio console.
const CONSOLE_ID: &str = "console0";

/// Name of the socket device.
const VSOCK_ID: &str = "vsock0";

/// The machine of a slot.
pub(crate) fn vm_config(slot: &Slot) -> VmConfig {
    let disks = slot.disks.iter().map(|disk| DeviceConfig::Blk(blk(disk)));
    let nics = slot
        .nics
        .iter()
        .map(|nic| DeviceConfig::Net(net(slot, nic)));
    let shares = slot.shares.iter().map(|share| DeviceConfig::Fs(fs(share)));
    let rng = DeviceConfig::Rng(RngConfig {
        id: DeviceId::new(RNG_ID),
        position: Position(slot.rng_position),
    });
    let vsock = slot.vsock.iter().filter_map(vsock).map(DeviceConfig::Vsock);
    let console = ConsoleConfig {
        id: DeviceId::new(CONSOLE_ID),
        position: Position(CONSOLE_POSITION),
    };
    let console = (slot.console == ConsoleMode::Hvc).then_some(DeviceConfig::Console(console));
    VmConfig {
        name: slot.name.to_string(),
        vcpus: slot.machine.vcpus,
        memory_mib: slot.machine.memory_mib,
        uuid: slot.machine.uuid,
        oem_strings: Vec::new(),
        boot: boot(slot),
        discovery: match slot.boot.discovery {
            config::Discovery::Acpi => Discovery::Acpi,
            config::Discovery::Cmdline => Discovery::Cmdline,
        },
        registers: match slot.machine.registers {
            config::Registers::Memory => RegisterReads::Memory,
            config::Registers::Exits => RegisterReads::Exits,
        },
        devices: disks
            .chain(nics)
            .chain(shares)
            .chain([rng])
            .chain(vsock)
            .chain(console)
            .collect(),
    }
}

/// The name under which a disk's open image is handed over.
pub(crate) fn disk_id(disk: &Disk) -> DeviceId {
    DeviceId::new(disk.id.as_str())
}

/// The name under which a card's open tap is handed over.
pub(crate) fn nic_id(nic: &Nic) -> DeviceId {
    DeviceId::new(nic.id.as_str())
}

/// The name under which the way to a share's backend is handed over.
pub(crate) fn share_id(share: &Share) -> DeviceId {
    DeviceId::new(share.id.as_str())
}

/// The name under which the host's side of the socket device is handed over.
pub(crate) fn vsock_id() -> DeviceId {
    DeviceId::new(VSOCK_ID)
}

/// The socket device; every number that the schema admits is an address.
fn vsock(vsock: &Vsock) -> Option<VsockConfig> {
    Some(VsockConfig {
        id: vsock_id(),
        position: Position(vsock.position),
        cid: Cid::new(vsock.cid.into()).ok()?,
    })
}

fn blk(disk: &Disk) -> BlkConfig {
    BlkConfig {
        id: disk_id(disk),
        position: Position(disk.position),
        access: match disk.usage {
            Use::ReadOnly => Access::ReadOnly,
            Use::Exclusive => Access::ReadWrite,
        },
        serial: disk.serial.clone(),
        engine: match disk.engine {
            config::Engine::Auto => Engine::Auto,
            config::Engine::IoUring => Engine::IoUring,
            config::Engine::Sync => Engine::Sync,
        },
        discard: if disk.discard {
            Discard::Offer
        } else {
            Discard::Hide
        },
    }
}

fn net(slot: &Slot, nic: &Nic) -> NetConfig {
    NetConfig {
        id: nic_id(nic),
        position: Position(nic.position),
        mac: MacAddr(nic.mac),
        mtu: nic.mtu,
        dhcp: nic.dhcp.then(|| lease(slot, nic)),
        rx_limits: limits(nic.rx),
        tx_limits: limits(nic.tx),
    }
}

/// What kernel parameters would tell the guest of its first card.
fn lease(slot: &Slot, nic: &Nic) -> Lease {
    let net = slot.net();
    let gateway = net.gateway();
    Lease {
        mac: MacAddr(nic.mac),
        address: net.guest(),
        prefix_len: gateway.prefix_len(),
        gateway: gateway.addr(),
        dns: vec![gateway.addr()],
        hostname: slot.name.to_string(),
        mtu: nic.mtu,
    }
}

fn limits(limit: Limit) -> Limits {
    let rate = |limit: super::limits::Rate| Rate {
        per_second: limit.per_second,
        burst: limit.burst,
    };
    Limits {
        bytes: limit.bytes.map(rate),
        operations: limit.packets.map(rate),
    }
}

fn fs(share: &Share) -> FsConfig {
    FsConfig {
        id: share_id(share),
        position: Position(share.position),
        tag: share.tag.clone(),
        queues: share.queues,
        window: match share.backend {
            Backend::BuiltIn { dax_mib, .. } => dax_mib.map(|mib| mib << 20),
            Backend::External { .. } => None,
        },
        on_exit: match share.on_backend_exit {
            config::OnBackendExit::Restart => OnExit::Restart,
            config::OnBackendExit::Fail => OnExit::Fail,
        },
    }
}

/// The kernel parameter that has a guest become another machine, once for each number.
pub(crate) fn reset_identity(number: uuid::Uuid) -> String {
    format!("slotvmm.reset_identity={number}")
}

fn boot(slot: &Slot) -> BootConfig {
    let Boot {
        source,
        init,
        params,
        defaults,
        ..
    } = &slot.boot;
    BootConfig {
        source: match source.clone() {
            super::BootSource::Bootstrap { image, toplevel } => {
                BootSource::Bootstrap { image, toplevel }
            }
            super::BootSource::Toplevel { path } => BootSource::Toplevel { path },
            super::BootSource::Files { kernel, initrd } => BootSource::Files { kernel, initrd },
        },
        params: params.clone(),
        defaults: defaults.clone(),
        init: init.clone(),
        cache_dir: Some(slot.paths.cache_dir.clone()),
    }
}

/// Checks the limits of the machine model that the schema does not know.
pub(super) fn check_limits(
    slot: &Slot,
    host: &HostFile,
    loaded: &LoadedSlot,
    problems: &mut Vec<Problem>,
) {
    let mib = slot.machine.memory_mib;
    if (MIN_RAM_MIB..=MAX_RAM_MIB).contains(&mib) {
        return;
    }
    let own = &loaded.file.common.machine.memory;
    if let Some(set) = own.as_ref().or(host.defaults.machine.memory.as_ref()) {
        problems.push(set.problem(format!(
            "expected {MIN_RAM_MIB} MiB to {MAX_RAM_MIB} MiB of memory, found {mib} MiB"
        )));
    }
}
