//! The monitors that a measurement compares, each with the smallest machine that boots the guest:
//! 256 MiB, one vCPU, one disk, a serial console, `quiet`. How others are started is `boot_bench`'s.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boot_bench::machine::{Access, Disk, Machine};
use boot_bench::peer;

const MEMORY_MIB: u32 = 256;
/// Without ACPI a machine ends by a reset, so all of them do.
const PARAMS: &str = "console=ttyS0 quiet reboot=k panic=-1 mini.then=reboot";

/// A monitor to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which one.
    pub name: String,
    /// Its program.
    pub path: PathBuf,
    kind: Kind,
    /// Kernel parameters besides those that every monitor's guest has.
    params: String,
    /// Of slotvmm: `boot.profile`. Peers are compared with the one that adds nothing.
    profile: &'static str,
}

const SAME_PARAMETERS: &str = "compatible";

/// slotvmm with more kernel parameters, to tell what they save.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Which one.
    pub name: String,
    /// The parameters.
    pub params: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Slotvmm,
    Other(peer::Kind),
}

impl Peer {
    pub(super) fn slotvmm(program: &Path) -> Self {
        Self {
            name: "slotvmm".to_owned(),
            path: program.to_owned(),
            kind: Kind::Slotvmm,
            params: String::new(),
            profile: SAME_PARAMETERS,
        }
    }

    /// slotvmm as it boots a slot that does not say otherwise.
    pub(super) fn fast(&self) -> Self {
        Self {
            name: format!("{}+fast", self.name),
            profile: "fast",
            ..self.clone()
        }
    }

    /// Whether it is somebody else's monitor of this kind.
    pub(super) fn is(&self, kind: peer::Kind) -> bool {
        self.kind == Kind::Other(kind)
    }

    /// Whether it is anything but the program under measurement.
    pub(super) fn is_peer(&self) -> bool {
        self.name != "slotvmm"
    }
}

impl FromStr for Peer {
    type Err = peer::PeerError;

    fn from_str(text: &str) -> Result<Self, peer::PeerError> {
        // An older build of ours, to compare with.
        if let Some((name, path)) = text.split_once('=')
            && name.starts_with("slotvmm-")
            && !path.is_empty()
        {
            return Ok(Self {
                name: name.to_owned(),
                path: path.into(),
                kind: Kind::Slotvmm,
                params: String::new(),
                profile: SAME_PARAMETERS,
            });
        }
        let other: peer::Peer = text.parse()?;
        Ok(Self {
            name: other.name,
            path: other.program,
            kind: Kind::Other(other.kind),
            params: String::new(),
            profile: SAME_PARAMETERS,
        })
    }
}

impl Variant {
    pub(super) fn of(&self, slotvmm: &Peer) -> Peer {
        Peer {
            name: format!("slotvmm+{}", self.name),
            params: self.params.clone(),
            ..slotvmm.clone()
        }
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, params) = text
            .split_once('=')
            .ok_or("expected NAME=PARAMS, such as untested=cryptomgr.notests")?;
        Ok(Self {
            name: name.to_owned(),
            params: params.to_owned(),
        })
    }
}

/// The guest, in memory.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) dir: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
    disk: PathBuf,
    params: String,
}

impl Guest {
    /// Copies the kernel in `from` to `dir` and makes an empty disk there.
    pub(super) fn prepare(dir: &Path, from: &Path, disk_bytes: u64) -> Result<Self> {
        let guest = Self {
            dir: dir.to_owned(),
            kernel: dir.join("vmlinux"),
            initrd: dir.join("initrd"),
            disk: dir.join("disk"),
            params: PARAMS.to_owned(),
        };
        for (name, to) in [("vmlinux", &guest.kernel), ("initrd", &guest.initrd)] {
            let from = from.join(name);
            fs::copy(&from, to).with_context(|| format!("Cannot copy {}", from.display()))?;
        }
        File::create(&guest.disk)?.set_len(disk_bytes)?;
        Ok(guest)
    }

    /// With data all over its disk, and a script to run before the machine ends.
    pub(super) fn with_script(mut self, script: &str) -> Result<Self> {
        let bytes = fs::metadata(&self.disk)?.len();
        fs::write(&self.disk, vec![0xa5; usize::try_from(bytes)?])?;
        self.params += &format!(" mini.run={}", STANDARD.encode(script));
        Ok(self)
    }

    /// Its machine, for other monitors.
    fn machine(&self) -> Machine {
        Machine {
            vcpus: 1,
            memory_mib: MEMORY_MIB.into(),
            kernel: self.kernel.clone(),
            initrd: Some(self.initrd.clone()),
            cmdline: self.params.clone(),
            disks: vec![Disk {
                path: self.disk.clone(),
                access: Access::ReadWrite,
            }],
            nics: Vec::new(),
            shares: Vec::new(),
            cid: None,
        }
    }
}

/// The command line that boots `guest`.
pub(super) fn command(monitor: &Peer, guest: &Guest) -> Result<Command> {
    let mut command = Command::new(&monitor.path);
    match monitor.kind {
        Kind::Slotvmm => command.args(slotvmm(monitor, guest)?),
        Kind::Other(kind) => {
            let other = peer::Peer {
                name: monitor.name.clone(),
                kind,
                program: monitor.path.clone(),
            };
            command.args(other.arguments(&guest.machine(), &guest.dir)?)
        }
    };
    Ok(command)
}

fn slotvmm(monitor: &Peer, guest: &Guest) -> Result<Vec<OsString>> {
    let config = guest.dir.join(format!("{}.d", monitor.name));
    fs::create_dir_all(config.join("slots"))?;
    let host = ["state", "run", "cache"].map(|kind| {
        let path = config.join(kind);
        format!("{kind}_dir = {path:?}\n")
    });
    fs::write(config.join("host.toml"), host.concat())?;
    let slot = format!(
        "net = []\n[data]\nenabled = false\n[machine]\nmemory = {MEMORY_MIB}\n[boot]\nprofile = {:?}\nkernel = {:?}\n\
         initrd = {:?}\nparams = {:?}\n[[disk]]\nposition = 2\npath = {:?}\n",
        monitor.profile,
        guest.kernel,
        guest.initrd,
        guest
            .params
            .split(' ')
            .chain(monitor.params.split_ascii_whitespace())
            .collect::<Vec<_>>(),
        guest.disk
    );
    fs::write(config.join("slots/slot1.toml"), slot)?;
    Ok(vec![
        "--config".into(),
        config.into(),
        "run".into(),
        "slot1".into(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_told_by_name() {
        let peer: Peer = "qemu=/usr/bin/qemu-system-x86_64".parse().unwrap();
        assert_eq!(peer.kind, Kind::Other(peer::Kind::Qemu));
        assert_eq!(peer.path, Path::new("/usr/bin/qemu-system-x86_64"));
        let older: Peer = "slotvmm-before=/tmp/x".parse().unwrap();
        assert_eq!(older.kind, Kind::Slotvmm);
        let error = |text: &str| text.parse::<Peer>().unwrap_err().to_string();
        assert!(error("qemu").contains("NAME=PATH"));
        assert!(error("bochs=/x").contains("bochs"));
        let variant: Variant = "few=8250.nr_uarts=1 pci=off".parse().unwrap();
        assert_eq!(variant.name, "few");
        assert_eq!(variant.params, "8250.nr_uarts=1 pci=off");
    }
}
