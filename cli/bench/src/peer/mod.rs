//! Machine monitors that others make: where they are, and how their users start them with a machine
//! of ours. One file per monitor has its command line.

mod cloud_hypervisor;
mod firecracker;
mod qemu;

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::machine::{Machine, Nic};

/// Ways to start a monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// QEMU with its `microvm` machine.
    Qemu,
    /// cloud-hypervisor.
    CloudHypervisor,
    /// Firecracker without its API.
    Firecracker,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Qemu, Self::CloudHypervisor, Self::Firecracker];

    /// What users call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::CloudHypervisor => "cloud-hypervisor",
            Self::Firecracker => "firecracker",
        }
    }

    /// Its program on the search path.
    fn program(self) -> &'static str {
        match self {
            Self::Qemu => "qemu-system-x86_64",
            Self::CloudHypervisor | Self::Firecracker => self.name(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// A name that is no monitor's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no monitor that can be compared with, expected qemu, cloud-hypervisor or firecracker"
)]
pub struct UnknownKind(String);

/// A monitor's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What it is called in results.
    pub name: String,
    /// How it is started.
    pub kind: Kind,
    /// The program.
    pub program: PathBuf,
}

/// Why a peer cannot be told from what was typed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No equals sign, or nothing on one side of it.
    #[error("Expected NAME=PATH, such as firecracker=/usr/local/bin/firecracker, found {0:?}")]
    Form(String),
    /// Not a name of ours.
    #[error(transparent)]
    Kind(#[from] UnknownKind),
}

impl FromStr for Peer {
    type Err = PeerError;

    /// `NAME=PATH`. What follows a hyphen after the monitor's name tells several of a kind apart, as
    /// in `qemu-11=/opt/qemu/bin/qemu-system-x86_64`.
    fn from_str(text: &str) -> Result<Self, PeerError> {
        let (name, path) = text
            .split_once('=')
            .filter(|(name, path)| !name.is_empty() && !path.is_empty())
            .ok_or_else(|| PeerError::Form(text.to_owned()))?;
        let named = |kind: &Kind| {
            let rest = name.strip_prefix(kind.name());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        let kind = Kind::ALL.into_iter().find(named);
        Ok(Self {
            name: name.to_owned(),
            kind: kind.ok_or_else(|| UnknownKind(name.to_owned()))?,
            program: path.into(),
        })
    }
}

impl Peer {
    /// The monitor of this kind on the search path.
    pub fn find(kind: Kind) -> Option<Self> {
        let path = env::var_os("PATH")?;
        let mut candidates = env::split_paths(&path).map(|dir| dir.join(kind.program()));
        Some(Self {
            name: kind.name().to_owned(),
            kind,
            program: candidates.find(|candidate| candidate.is_file())?,
        })
    }

    /// The arguments that boot `machine`; what they refer to besides is written to `dir`, which is
    /// where the socket to the guest's ports appears.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn arguments(&self, machine: &Machine, dir: &Path) -> io::Result<Vec<OsString>> {
        match self.kind {
            Kind::Qemu => Ok(qemu::arguments(machine, dir)),
            Kind::CloudHypervisor => Ok(cloud_hypervisor::arguments(machine, dir, &socket(dir))),
            Kind::Firecracker => firecracker::arguments(machine, dir, &socket(dir)),
        }
    }

    /// Whether its guests can have shared directories.
    pub fn shares_directories(&self) -> bool {
        self.kind != Kind::Firecracker
    }

    /// How many pairs of queues it gives a card. Who has one pair expects a tap that was made for one.
    pub fn queues(&self, nic: &Nic) -> u8 {
        match self.kind {
            Kind::Qemu | Kind::CloudHypervisor => nic.queues,
            Kind::Firecracker => 1,
        }
    }

    /// How a guest's connection to `port` of the host arrives.
    pub fn guest_port(&self, dir: &Path, port: u32) -> GuestPort {
        match self.kind {
            Kind::Qemu => GuestPort::Vsock(port),
            Kind::CloudHypervisor | Kind::Firecracker => {
                let mut path = socket(dir).into_os_string();
                path.push(format!("_{port}"));
                GuestPort::Unix(path.into())
            }
        }
    }
}

/// Where the host's side of a guest's connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestPort {
    /// At a Unix socket.
    Unix(PathBuf),
    /// At a port of the host's own AF_VSOCK.
    Vsock(u32),
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("vsock")
}

/// Entries of a share's request queue, as many as ours have.
const SHARE_QUEUE: u16 = 512;

/// Where a monitor whose files are in `dir` connects to who serves its share number `index`.
pub fn share_socket(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("fs{index}"))
}

/// `words`, split at blanks.
fn split(words: &str) -> impl Iterator<Item = OsString> {
    words.split_ascii_whitespace().map(OsString::from)
}

/// `prefix`, a path, `suffix`.
fn joined(prefix: &str, path: &Path, suffix: &str) -> OsString {
    let mut word = OsString::from(prefix);
    word.push(path);
    word.push(suffix);
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Access, Disk, Nic, Share};

    fn machine() -> Machine {
        let disk = |path: &str, access| Disk {
            path: path.into(),
            access,
        };
        Machine {
            vcpus: 2,
            memory_mib: 256,
            kernel: "/b/vmlinux".into(),
            initrd: Some("/b/initrd".into()),
            cmdline: "console=ttyS0 quiet".to_owned(),
            disks: vec![
                disk("/b/system", Access::ReadOnly),
                disk("/b/data", Access::ReadWrite),
            ],
            nics: vec![card(1)],
            shares: Vec::new(),
            cid: Some(7),
        }
    }

    fn card(queues: u8) -> Nic {
        Nic {
            tap: "vm-slot1".to_owned(),
            mac: "02:00:00:00:00:01".to_owned(),
            queues,
            vhost: false,
        }
    }

    fn words(name: &str, dir: &Path) -> String {
        words_for(name, &machine(), dir)
    }

    fn words_for(name: &str, machine: &Machine, dir: &Path) -> String {
        let peer: Peer = format!("{name}=/bin/x").parse().unwrap();
        let words = peer.arguments(machine, dir).unwrap();
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn every_monitor_gets_the_same_machine() {
        let dir = tempfile::tempdir().unwrap();
        let qemu = words("qemu", dir.path());
        for word in [
            "-smp 2",
            "-m 256M",
            "-kernel /b/vmlinux",
            "-initrd /b/initrd",
            "-append console=ttyS0 quiet",
            "readonly=on,file=/b/system",
            "readonly=off,file=/b/data",
            "guest-cid=7",
        ] {
            assert!(qemu.contains(word), "{word}: {qemu}");
        }
        let cloud = words("cloud-hypervisor", dir.path());
        for word in [
            "boot=2",
            "size=256M",
            "--kernel /b/vmlinux",
            "--initramfs /b/initrd",
            "--cmdline console=ttyS0 quiet",
            "path=/b/system,readonly=on path=/b/data,readonly=off",
            "cid=7,socket=",
        ] {
            assert!(cloud.contains(word), "{word}: {cloud}");
        }
        words("firecracker", dir.path());
        let file = std::fs::read(dir.path().join("firecracker.json")).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
        assert_eq!(file["machine-config"]["vcpu_count"], 2);
        assert_eq!(file["machine-config"]["mem_size_mib"], 256);
        assert_eq!(file["boot-source"]["initrd_path"], "/b/initrd");
        assert_eq!(file["drives"][0]["is_read_only"], true);
        assert_eq!(file["drives"][1]["path_on_host"], "/b/data");
        assert_eq!(file["vsock"]["guest_cid"], 7);
    }

    #[test]
    fn cards_are_given_as_each_monitor_takes_them() {
        let dir = tempfile::tempdir().unwrap();
        let one = machine();
        let two = Machine {
            nics: vec![Nic {
                vhost: true,
                ..card(2)
            }],
            ..machine()
        };
        let qemu = words_for("qemu", &one, dir.path());
        let tap = "-netdev tap,id=net0,ifname=vm-slot1,script=no,downscript=no";
        let device = "-device virtio-net-device,netdev=net0,mac=02:00:00:00:00:01";
        assert!(qemu.contains(&format!("{tap} {device} ")), "{qemu}");
        let qemu = words_for("qemu", &two, dir.path());
        let both = format!("{tap},queues=2,vhost=on {device},mq=on");
        assert!(qemu.contains(&both), "{qemu}");
        let cloud = words_for("cloud-hypervisor", &one, dir.path());
        let net = "--net tap=vm-slot1,mac=02:00:00:00:00:01,num_queues=";
        assert!(cloud.contains(&format!("{net}2")), "{cloud}");
        let cloud = words_for("cloud-hypervisor", &two, dir.path());
        assert!(cloud.contains(&format!("{net}4")), "{cloud}");
        words_for("firecracker", &two, dir.path());
        let file = std::fs::read(dir.path().join("firecracker.json")).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
        let card = &file["network-interfaces"][0];
        assert_eq!(card["guest_mac"], "02:00:00:00:00:01");
        assert_eq!(card["host_dev_name"], "vm-slot1");
    }

    #[test]
    fn shares_need_memory_that_is_shared() {
        let dir = Path::new("/b");
        let shared = Machine {
            shares: vec![Share {
                tag: "store".to_owned(),
                queues: 2,
            }],
            ..machine()
        };
        let qemu = words_for("qemu", &shared, dir);
        for word in [
            "-object memory-backend-memfd,id=ram,size=256M,share=on",
            "-machine memory-backend=ram",
            "-chardev socket,id=fs0,path=/b/fs0",
            "vhost-user-fs-device,chardev=fs0,tag=store,num-request-queues=2,queue-size=512",
        ] {
            assert!(qemu.contains(word), "{word}: {qemu}");
        }
        let cloud = words_for("cloud-hypervisor", &shared, dir);
        for word in [
            "--memory size=256M,shared=on",
            "--fs tag=store,socket=/b/fs0,num_queues=2,queue_size=512",
        ] {
            assert!(cloud.contains(word), "{word}: {cloud}");
        }
        let at = |name: &str| name.parse::<Peer>().unwrap().shares_directories();
        assert!(at("qemu=/x") && at("cloud-hypervisor=/x") && !at("firecracker=/x"));
    }

    #[test]
    fn firecracker_has_one_pair_of_queues() {
        let queues = |name: &str| name.parse::<Peer>().unwrap().queues(&card(4));
        assert_eq!(
            ["qemu=/x", "cloud-hypervisor=/x", "firecracker=/x"].map(queues),
            [4, 4, 1]
        );
    }

    #[test]
    fn machine_without_cards_gets_none() {
        let dir = tempfile::tempdir().unwrap();
        let none = Machine {
            nics: Vec::new(),
            ..machine()
        };
        let qemu = words_for("qemu", &none, dir.path());
        let cloud = words_for("cloud-hypervisor", &none, dir.path());
        assert!(!qemu.contains("-netdev") && !cloud.contains("--net"));
    }

    #[test]
    fn peers_are_told_by_name() {
        let peer: Peer = "qemu-11=/opt/qemu".parse().unwrap();
        assert_eq!((peer.kind, peer.name.as_str()), (Kind::Qemu, "qemu-11"));
        assert!(matches!("qemu".parse::<Peer>(), Err(PeerError::Form(_))));
        assert!(matches!("qemu=".parse::<Peer>(), Err(PeerError::Form(_))));
        let unknown = "qemus=/x".parse::<Peer>().unwrap_err().to_string();
        assert!(unknown.contains("cloud-hypervisor"), "{unknown}");
    }

    #[test]
    fn connections_of_guests_arrive_where_each_monitor_leads_them() {
        let dir = Path::new("/b");
        let at = |text: &str| text.parse::<Peer>().unwrap().guest_port(dir, 5122);
        assert_eq!(at("qemu=/x"), GuestPort::Vsock(5122));
        let unix = GuestPort::Unix("/b/vsock_5122".into());
        assert_eq!(at("firecracker=/x"), unix);
        assert_eq!(at("cloud-hypervisor=/x"), unix);
    }
}
