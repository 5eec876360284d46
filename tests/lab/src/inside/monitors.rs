//! The monitors that a measurement compares, each with the smallest machine that boots the guest:
//! 256 MiB, one vCPU, one disk, a serial console, `quiet`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result};
use serde_json::json;

const MEMORY_MIB: u32 = 256;
const DISK_BYTES: u64 = 16 << 20;
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Slotvmm,
    Qemu,
    CloudHypervisor,
    Firecracker,
}

impl Peer {
    pub(super) fn slotvmm(program: &Path) -> Self {
        Self {
            name: "slotvmm".to_owned(),
            path: program.to_owned(),
            kind: Kind::Slotvmm,
        }
    }

    /// Whether it is anything but the program under measurement.
    pub(super) fn is_peer(&self) -> bool {
        self.name != "slotvmm"
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text
            .split_once('=')
            .ok_or("expected NAME=PATH, such as firecracker=/usr/bin/firecracker")?;
        let kind = match name {
            "qemu" => Kind::Qemu,
            "cloud-hypervisor" => Kind::CloudHypervisor,
            "firecracker" => Kind::Firecracker,
            // An older build of ours, to compare with.
            _ if name.starts_with("slotvmm-") => Kind::Slotvmm,
            _ => {
                return Err(format!(
                    "{name} is unknown; expected qemu, cloud-hypervisor, firecracker or slotvmm-ANYTHING"
                ));
            }
        };
        Ok(Self {
            name: name.to_owned(),
            path: path.into(),
            kind,
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
}

impl Guest {
    /// Copies the kernel in `from` to `dir` and makes a disk there.
    pub(super) fn prepare(dir: &Path, from: &Path) -> Result<Self> {
        let guest = Self {
            dir: dir.to_owned(),
            kernel: dir.join("vmlinux"),
            initrd: dir.join("initrd"),
            disk: dir.join("disk"),
        };
        for (name, to) in [("vmlinux", &guest.kernel), ("initrd", &guest.initrd)] {
            let from = from.join(name);
            fs::copy(&from, to).with_context(|| format!("Cannot copy {}", from.display()))?;
        }
        File::create(&guest.disk)?.set_len(DISK_BYTES)?;
        Ok(guest)
    }
}

/// The command line that boots `guest`.
pub(super) fn command(monitor: &Peer, guest: &Guest) -> Result<Command> {
    let mut command = Command::new(&monitor.path);
    match monitor.kind {
        Kind::Slotvmm => command.args(slotvmm(&monitor.name, guest)?),
        Kind::Qemu => command.args(qemu(guest)),
        Kind::CloudHypervisor => command.args(cloud_hypervisor(guest)),
        Kind::Firecracker => command.args(firecracker(guest)?),
    };
    Ok(command)
}

fn slotvmm(name: &str, guest: &Guest) -> Result<Vec<OsString>> {
    let config = guest.dir.join(format!("{name}.d"));
    fs::create_dir_all(config.join("slots"))?;
    let host = ["state", "run", "cache"].map(|kind| {
        let path = config.join(kind);
        format!("{kind}_dir = {path:?}\n")
    });
    fs::write(config.join("host.toml"), host.concat())?;
    let slot = format!(
        "net = []\n[data]\nenabled = false\n[machine]\nmemory = {MEMORY_MIB}\n[boot]\nkernel = {:?}\n\
         initrd = {:?}\nparams = {:?}\n[[disk]]\nposition = 2\npath = {:?}\n",
        guest.kernel,
        guest.initrd,
        PARAMS.split(' ').collect::<Vec<_>>(),
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

fn qemu(guest: &Guest) -> Vec<OsString> {
    let mut words = split(
        "-M microvm,accel=kvm,isa-serial=on,rtc=on -cpu host -smp 1 \
         -nodefaults -no-user-config -no-reboot -display none -serial stdio \
         -device virtio-blk-device,drive=disk",
    );
    let drive = format!("if=none,id=disk,format=raw,file={}", guest.disk.display());
    words.extend(["-m".into(), MEMORY_MIB.to_string().into()]);
    words.extend(["-kernel".into(), guest.kernel.clone().into()]);
    words.extend(["-initrd".into(), guest.initrd.clone().into()]);
    words.extend([
        "-append".into(),
        PARAMS.into(),
        "-drive".into(),
        drive.into(),
    ]);
    words
}

fn cloud_hypervisor(guest: &Guest) -> Vec<OsString> {
    let mut words = split("--cpus boot=1 --serial tty --console off --memory");
    words.push(format!("size={MEMORY_MIB}M").into());
    words.extend(["--kernel".into(), guest.kernel.clone().into()]);
    words.extend(["--initramfs".into(), guest.initrd.clone().into()]);
    words.extend(["--cmdline".into(), PARAMS.into(), "--disk".into()]);
    words.push(format!("path={}", guest.disk.display()).into());
    words
}

fn firecracker(guest: &Guest) -> Result<Vec<OsString>> {
    let machine = json!({
        "boot-source": {
            "kernel_image_path": guest.kernel, "initrd_path": guest.initrd, "boot_args": PARAMS,
        },
        "drives": [{
            "drive_id": "disk", "path_on_host": guest.disk,
            "is_root_device": false, "is_read_only": false,
        }],
        "machine-config": { "vcpu_count": 1, "mem_size_mib": MEMORY_MIB },
    });
    let path = guest.dir.join("firecracker.json");
    fs::write(&path, machine.to_string())?;
    let mut words = split("--no-api --config-file");
    words.push(path.into());
    Ok(words)
}

fn split(words: &str) -> Vec<OsString> {
    words.split_whitespace().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_told_by_name() {
        let peer: Peer = "qemu=/usr/bin/qemu-system-x86_64".parse().unwrap();
        assert_eq!(peer.kind, Kind::Qemu);
        assert_eq!(peer.path, Path::new("/usr/bin/qemu-system-x86_64"));
        assert!("qemu".parse::<Peer>().unwrap_err().contains("NAME=PATH"));
        assert!(
            "bochs=/x"
                .parse::<Peer>()
                .unwrap_err()
                .contains("bochs is unknown")
        );
    }
}
