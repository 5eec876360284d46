//! A slot's file, `slots/<slot>.toml`: what it may say. Nothing here has a default yet.

use hostnet::slot::{InterfaceName, SlotIndex, SlotName};
use uuid::Uuid;

use super::credentials::CredentialsFile;
use super::net::PolicyFile;
use super::problem::Located;
use super::reader::{Ranged, Table};
use super::ready::ReadyFile;
use super::share::FsFile;
use super::snapshot::RunningSnapshotFile;
use super::values::{AbsolutePath, ByteSize, KernelParam, Label, Mac, Serial, SizeMib};
use super::vsock::VsockFile;
use super::words::{ConsoleMode, Discovery, Engine, Identity, Profile, Registers, Vhost};

/// A value that may be set, with its place.
pub(crate) type Setting<T> = Option<Located<T>>;

/// What a slot's file says.
#[derive(Debug, Default)]
pub(crate) struct SlotFile {
    /// `name`: must be the file's own name.
    pub(crate) name: Setting<SlotName>,
    /// `index`: number of the slot, for names that carry none.
    pub(crate) index: Setting<SlotIndex>,
    /// `[boot]`, `[machine]`, `[console]`, `[data]`: also found in the host file's `[defaults]`.
    pub(crate) common: Common,
    /// `[[disk]]`
    pub(crate) disks: Vec<DiskFile>,
    /// `[[fs]]`
    pub(crate) shares: Vec<FsFile>,
    /// `[vsock]`
    pub(crate) vsock: VsockFile,
    /// `[ready]`
    pub(crate) ready: ReadyFile,
    /// `[snapshot]`
    pub(crate) snapshot: RunningSnapshotFile,
    /// `[credentials]`
    pub(crate) credentials: CredentialsFile,
    /// `[[net]]`, or one card as `[net]`; nothing when the file does not say, empty when it says
    /// `net = []`.
    pub(crate) nets: Option<Vec<NetFile>>,
}

/// The tables that the host file can preset for every slot.
#[derive(Debug, Default)]
pub(crate) struct Common {
    /// `[boot]`
    pub(crate) boot: BootFile,
    /// `[machine]`
    pub(crate) machine: MachineFile,
    /// `[console]`
    pub(crate) console: ConsoleFile,
    /// `[data]`
    pub(crate) data: DataFile,
}

/// `[boot]`: one of `bootstrap`, `toplevel`, or `kernel` with `initrd`.
#[derive(Debug, Default)]
pub(crate) struct BootFile {
    /// `bootstrap`: the squashfs image.
    pub(crate) bootstrap: Setting<AbsolutePath>,
    /// `toplevel`: a NixOS system, on the host or inside the bootstrap.
    pub(crate) toplevel: Setting<AbsolutePath>,
    /// `kernel`: a kernel image on the host.
    pub(crate) kernel: Setting<AbsolutePath>,
    /// `initrd`: an initial RAM disk on the host.
    pub(crate) initrd: Setting<AbsolutePath>,
    /// `init`: path in the guest.
    pub(crate) init: Setting<AbsolutePath>,
    /// `params`: added to the image's own.
    pub(crate) params: Setting<Vec<KernelParam>>,
    /// `profile`
    pub(crate) profile: Setting<Profile>,
    /// `discovery`
    pub(crate) discovery: Setting<Discovery>,
    /// `identity`
    pub(crate) identity: Setting<Identity>,
}

/// `[machine]`
#[derive(Debug, Default)]
pub(crate) struct MachineFile {
    /// `vcpus`
    pub(crate) vcpus: Setting<Ranged<1, 254>>,
    /// `memory`
    pub(crate) memory: Setting<SizeMib>,
    /// `uuid`
    pub(crate) uuid: Setting<Uuid>,
    /// `registers`
    pub(crate) registers: Setting<Registers>,
}

/// `[console]`
#[derive(Debug, Default)]
pub(crate) struct ConsoleFile {
    /// `mode`
    pub(crate) mode: Setting<ConsoleMode>,
}

/// `[data]`: the slot's writable disk.
#[derive(Debug, Default)]
pub(crate) struct DataFile {
    /// `enabled`: whether there is one.
    pub(crate) enabled: Setting<bool>,
    /// `path`
    pub(crate) path: Setting<AbsolutePath>,
    /// `size`, of a new image.
    pub(crate) size: Setting<SizeMib>,
    /// `template`, copied to make a new image.
    pub(crate) template: Setting<AbsolutePath>,
    /// `label` of a new file system.
    pub(crate) label: Setting<Label>,
    /// `serial`, `engine`, `discard`
    pub(crate) tuning: DiskTuning,
}

/// What every disk can be told.
#[derive(Debug, Default)]
pub(crate) struct DiskTuning {
    /// `serial`
    pub(crate) serial: Setting<Serial>,
    /// `engine`
    pub(crate) engine: Setting<Engine>,
    /// `discard`
    pub(crate) discard: Setting<bool>,
}

/// One `[[disk]]`.
#[derive(Debug)]
pub(crate) struct DiskFile {
    /// The table itself.
    pub(crate) at: Located<()>,
    /// `path`; absent only when that was reported.
    pub(crate) path: Setting<AbsolutePath>,
    /// `position`; absent only when that was reported.
    pub(crate) position: Setting<Ranged<2, 7>>,
    /// `readonly`
    pub(crate) readonly: Setting<bool>,
    /// `serial`, `engine`, `discard`
    pub(crate) tuning: DiskTuning,
}

/// One `[[net]]`. The first one has defaults from the slot's name.
#[derive(Debug)]
pub(crate) struct NetFile {
    /// The table itself.
    pub(crate) at: Located<()>,
    /// `tap`
    pub(crate) tap: Setting<InterfaceName>,
    /// `bridge`
    pub(crate) bridge: Setting<InterfaceName>,
    /// `mac`
    pub(crate) mac: Setting<Mac>,
    /// `mtu`
    pub(crate) mtu: Setting<Ranged<68, 65535>>,
    /// `queues`: pairs of queues.
    pub(crate) queues: Setting<Ranged<1, 8>>,
    /// `vhost`: whether the kernel serves the queues.
    pub(crate) vhost: Setting<Vhost>,
    /// `dhcp`: whether requests are answered.
    pub(crate) dhcp: Setting<bool>,
    /// `rx`: how fast the guest may receive.
    pub(crate) rx: LimitFile,
    /// `tx`: how fast the guest may send.
    pub(crate) tx: LimitFile,
    /// `position`
    pub(crate) position: Setting<Ranged<8, 11>>,
    /// Who reaches whom; for the first card only.
    pub(crate) policy: PolicyFile,
}

/// `[net.rx]`, `[net.tx]`: rates per second, each with what may pass at once.
#[derive(Debug, Default)]
pub(crate) struct LimitFile {
    /// `bandwidth`: bytes per second.
    pub(crate) bandwidth: Setting<ByteSize>,
    /// `burst`: bytes at once.
    pub(crate) burst: Setting<ByteSize>,
    /// `packets`: packets per second.
    pub(crate) packets: Setting<Ranged<1, 1_000_000_000>>,
    /// `packet_burst`: packets at once.
    pub(crate) packet_burst: Setting<Ranged<1, 1_000_000_000>>,
}

impl SlotFile {
    /// Reads a slot's file.
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            name: table.get("name"),
            index: table.get("index"),
            common: Common::read(&mut table),
            disks: table
                .tables("disk")
                .into_iter()
                .map(DiskFile::read)
                .collect(),
            shares: table.tables("fs").into_iter().map(FsFile::read).collect(),
            vsock: VsockFile::read(table.table("vsock")),
            ready: ReadyFile::read(table.table("ready")),
            snapshot: RunningSnapshotFile::read(table.table("snapshot")),
            credentials: CredentialsFile::read(table.table("credentials")),
            nets: table
                .has("net")
                .then(|| table.table_or_tables("net"))
                .map(|tables| tables.into_iter().map(NetFile::read).collect()),
        };
        table.finish();
        file
    }
}

impl Common {
    /// Reads the tables out of the one that holds them.
    pub(crate) fn read(table: &mut Table<'_>) -> Self {
        Self {
            boot: BootFile::read(table.table("boot")),
            machine: MachineFile::read(table.table("machine")),
            console: ConsoleFile::read(table.table("console")),
            data: DataFile::read(table.table("data")),
        }
    }
}

impl BootFile {
    fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            bootstrap: table.get("bootstrap"),
            toplevel: table.get("toplevel"),
            kernel: table.get("kernel"),
            initrd: table.get("initrd"),
            init: table.get("init"),
            params: table.get("params"),
            profile: table.get("profile"),
            discovery: table.get("discovery"),
            identity: table.get("identity"),
        };
        table.finish();
        file
    }

    /// Whether it names anything to boot.
    pub(crate) fn has_source(&self) -> bool {
        self.bootstrap.is_some() || self.toplevel.is_some() || self.kernel.is_some()
    }
}

impl MachineFile {
    fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            vcpus: table.get("vcpus"),
            memory: table.get("memory"),
            uuid: table.get("uuid"),
            registers: table.get("registers"),
        };
        table.finish();
        file
    }
}

impl ConsoleFile {
    fn read(mut table: Table<'_>) -> Self {
        let mode = table.get("mode");
        table.finish();
        Self { mode }
    }
}

impl DataFile {
    fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            enabled: table.get("enabled"),
            path: table.get("path"),
            size: table.get("size"),
            template: table.get("template"),
            label: table.get("label"),
            tuning: DiskTuning::read(&mut table),
        };
        table.finish();
        file
    }
}

impl DiskTuning {
    fn read(table: &mut Table<'_>) -> Self {
        Self {
            serial: table.get("serial"),
            engine: table.get("engine"),
            discard: table.get("discard"),
        }
    }
}

impl DiskFile {
    fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            at: table.located(),
            path: table.require("path"),
            position: table.require("position"),
            readonly: table.get("readonly"),
            tuning: DiskTuning::read(&mut table),
        };
        table.finish();
        file
    }
}

impl NetFile {
    fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            at: table.located(),
            tap: table.get("tap"),
            bridge: table.get("bridge"),
            mac: table.get("mac"),
            mtu: table.get("mtu"),
            queues: table.get("queues"),
            vhost: table.get("vhost"),
            dhcp: table.get("dhcp"),
            rx: LimitFile::read(table.table("rx")),
            tx: LimitFile::read(table.table("tx")),
            position: table.get("position"),
            policy: PolicyFile::read(&mut table),
        };
        table.finish();
        file
    }
}

impl LimitFile {
    fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            bandwidth: table.get("bandwidth"),
            burst: table.get("burst"),
            packets: table.get("packets"),
            packet_burst: table.get("packet_burst"),
        };
        table.finish();
        file
    }
}
