//! The machine monitors that the boot benchmarks compare: ours and its peers, each started with the
//! smallest machine that boots the guest, 256 MiB and one vCPU.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use boot_bench::machine::{Access, Disk, Machine};
use boot_bench::peer::{self, Peer};

use crate::guest::{self, Guest, GuestError};

/// RAM of every guest.
pub const MEMORY_MIB: u32 = 256;

/// A program that boots a guest.
#[derive(Debug, Clone)]
pub struct Monitor {
    /// What it is called in results.
    pub name: &'static str,
    program: PathBuf,
    kind: Kind,
}

/// What our machine has besides what peers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extras {
    None,
    Vsock,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Slotvmm(Extras),
    Bare,
    /// As `slotvmm bench boot` starts it.
    Peer(peer::Kind),
    QemuMicrovm,
}

/// Peers: name in results, program, and the environment variable that names another path for it.
const PEERS: [(&str, &str, &str, Kind); 3] = [
    (
        "cloud-hypervisor",
        "cloud-hypervisor",
        "BENCH_CLOUD_HYPERVISOR",
        Kind::Peer(peer::Kind::CloudHypervisor),
    ),
    (
        "firecracker",
        "firecracker",
        "BENCH_FIRECRACKER",
        Kind::Peer(peer::Kind::Firecracker),
    ),
    (
        "qemu-microvm",
        "qemu-system-x86_64",
        "BENCH_QEMU",
        Kind::QemuMicrovm,
    ),
];

impl Monitor {
    /// The product, started as `slotvmm run`: with the same machine as its peers, and with what each
    /// of its users has besides, the socket device with its services and the key for `slotvmm ssh`.
    /// `BENCH_SLOTVMM` names another build of it.
    ///
    /// # Errors
    /// When cargo does not build it.
    pub fn slotvmm() -> Result<[Self; 2], GuestError> {
        let program = match env::var_os("BENCH_SLOTVMM") {
            Some(path) => path.into(),
            None => guest::build_slotvmm()?,
        };
        let monitor = |name, extras| Self {
            name,
            program: PathBuf::clone(&program),
            kind: Kind::Slotvmm(extras),
        };
        Ok([
            monitor("slotvmm", Extras::None),
            monitor("slotvmm-vsock", Extras::Vsock),
        ])
    }

    /// Our machine without the command line tool around it; `program` is the `bare` binary.
    pub fn bare(program: &str) -> Self {
        Self {
            name: "slotvmm-bare",
            program: program.into(),
            kind: Kind::Bare,
        }
    }

    /// The peers that are on the search path or named in the environment. Says which are not.
    pub fn peers() -> Vec<Self> {
        PEERS
            .into_iter()
            .filter_map(|(name, program, variable, kind)| {
                let found = find(program, variable);
                if found.is_none() {
                    println!("skipped: {name}: {program} is not on the search path, and {variable} is not set");
                }
                found.map(|program| Self { name, program, kind })
            })
            .collect()
    }

    /// The command line that boots `guest`; what it refers to is written to `dir`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn command(&self, guest: &Guest, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut words = vec![self.program.clone().into_os_string()];
        match self.kind {
            Kind::Slotvmm(extras) => words.extend(slotvmm(guest, dir, extras)?.run()),
            Kind::Bare => words.extend(bare(guest)),
            Kind::Peer(kind) => {
                let peer = Peer {
                    name: self.name.to_owned(),
                    kind,
                    program: self.program.clone(),
                };
                words.extend(peer.arguments(&machine(guest), dir)?);
            }
            Kind::QemuMicrovm => words.extend(qemu(guest)),
        }
        Ok(words)
    }
}

impl Monitor {
    /// Ours, starting `machines` of `guest` at once, so many times, and telling what that took; what it
    /// refers to is written to `dir`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn together(
        &self,
        guest: &Guest,
        dir: &Path,
        machines: u32,
        rounds: u32,
    ) -> io::Result<Command> {
        let slot = slotvmm(guest, dir, Extras::None)?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&slot.config);
        command.args(split("bench boot --ignore-cpu-check --until exit"));
        command.args(["--together", &machines.to_string()]);
        command.args(["--boots", &rounds.to_string()]);
        command.arg(slot.name);
        Ok(command)
    }
}

/// The program that `variable` names in the environment, else the one on the search path.
pub fn find(program: &str, variable: &str) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Some(path.into());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

fn split(words: &str) -> impl Iterator<Item = OsString> {
    words.split_whitespace().map(OsString::from)
}

fn joined(prefix: &str, path: &Path, suffix: &str) -> OsString {
    let mut word = OsString::from(prefix);
    word.push(path);
    word.push(suffix);
    word
}

/// A slot of a host of its own.
struct Slot {
    /// The host's configuration directory.
    config: PathBuf,
    name: String,
}

impl Slot {
    /// What runs it.
    fn run(self) -> Vec<OsString> {
        let mut words = vec!["--config".into(), self.config.into()];
        words.extend(split("run --ignore-cpu-check"));
        words.push(self.name.into());
        words
    }
}

/// A host of its own in `dir`: one slot without a network card or data.
fn slotvmm(guest: &Guest, dir: &Path, extras: Extras) -> io::Result<Slot> {
    let (name, boot) = match (&guest.around, &guest.disk) {
        (Some(around), _) => ("large", format!("bootstrap = {:?}", around.bootstrap)),
        (None, None) => ("tiny", format!("kernel = {:?}", guest.kernel)),
        (None, Some(_)) => ("disk", format!("kernel = {:?}", guest.kernel)),
    };
    let params = Some(guest.params).filter(|params| !params.is_empty());
    let params = params.map(|params| format!("{params:?}"));
    let disk = guest
        .disk
        .as_ref()
        .map(|disk| format!("[[disk]]\nposition = 2\npath = {disk:?}\n"));
    let etc = dir.join("etc");
    fs::create_dir_all(etc.join("slots"))?;
    let host = ["state", "run", "cache"].map(|kind| {
        let path = dir.join(kind);
        format!("{kind}_dir = {path:?}\n")
    });
    fs::write(etc.join("host.toml"), host.concat())?;
    let (name, vsock) = match extras {
        Extras::None => (name.to_owned(), "[vsock]\nenabled = false\n"),
        Extras::Vsock => (format!("{name}-vsock"), ""),
    };
    let slot = format!(
        "index = 1\nnet = []\n[machine]\nmemory = {MEMORY_MIB}\n[data]\nenabled = false\n[boot]\n{boot}\n\
         params = [{}]\n{vsock}{}",
        params.unwrap_or_default(),
        disk.unwrap_or_default(),
    );
    fs::write(etc.join("slots").join(&name).with_extension("toml"), slot)?;
    Ok(Slot { config: etc, name })
}

fn bare(guest: &Guest) -> Vec<OsString> {
    match &guest.around {
        None => vec!["kernel".into(), guest.kernel.clone().into()],
        Some(around) => vec![
            "bootstrap".into(),
            around.bootstrap.clone().into(),
            around.cache.clone().into(),
        ],
    }
}

/// The guest's machine, for peers.
fn machine(guest: &Guest) -> Machine {
    let disks = disks(guest).into_iter();
    let disks = disks.map(|(path, access)| Disk {
        path: path.to_owned(),
        access,
    });
    Machine {
        vcpus: 1,
        memory_mib: MEMORY_MIB.into(),
        kernel: guest.kernel.clone(),
        initrd: guest.around.as_ref().map(|around| around.initrd.clone()),
        cmdline: format!("console=ttyS0 {}", guest.params),
        disks: disks.collect(),
        nics: Vec::new(),
        shares: Vec::new(),
        cid: None,
    }
}

/// The disks of a guest, in order.
fn disks(guest: &Guest) -> Vec<(&Path, Access)> {
    let bootstrap = guest.around.iter();
    let bootstrap = bootstrap.map(|around| (around.bootstrap.as_path(), Access::ReadOnly));
    let own = guest
        .disk
        .iter()
        .map(|disk| (disk.as_path(), Access::ReadWrite));
    bootstrap.chain(own).collect()
}

/// Everything off that the guest does without: with ACPI or option ROMs the firmware takes seconds
/// where ring 0 is interpreted.
fn qemu(guest: &Guest) -> Vec<OsString> {
    let mut words: Vec<OsString> = split(
        "-M microvm,accel=kvm,isa-serial=on,rtc=on,x-option-roms=off,pit=off,pic=off,acpi=off -smp 1 -nodefaults -no-user-config -no-reboot \
         -display none -serial stdio -device isa-debug-exit,iobase=0xf4",
    )
    .collect();
    words.extend(["-m".into(), MEMORY_MIB.to_string().into()]);
    words.extend(["-kernel".into(), guest.kernel.clone().into()]);
    if let Some(around) = &guest.around {
        words.extend(["-initrd".into(), around.initrd.clone().into()]);
    }
    words.extend(["-append".into(), guest.params.into()]);
    for (index, (disk, access)) in disks(guest).into_iter().enumerate() {
        let readonly = match access {
            Access::ReadOnly => "on",
            Access::ReadWrite => "off",
        };
        words.extend([
            "-device".into(),
            format!("virtio-blk-device,drive=disk{index}").into(),
        ]);
        let options = format!("if=none,id=disk{index},format=raw,readonly={readonly},file=");
        words.extend(["-drive".into(), joined(&options, disk, "")]);
    }
    words
}
