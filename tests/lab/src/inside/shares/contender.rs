//! What is compared: backends, each with the monitor it is usually found with.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::sys;

const MEMORY_MIB: u32 = 512;

/// What the guest runs first. What follows is too long for a kernel's command line.
const SCRIPT: &str = "load virtio_pci; load virtiofs; mkdir -p /tmp; \
                      mount -t virtiofs share /mnt && \
                      cp /mnt/measure.sh /tmp && sh /tmp/measure.sh";

/// Time for a backend to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// What another guest has, as `NAME=LINES`: for its share in a slot's file, or options of virtiofsd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct With {
    name: String,
    lines: String,
}

/// What virtiofsd does best for a share that does not change.
const BEST: &str = "--cache=always --sandbox=none";

impl FromStr for With {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, lines) = text
            .split_once('=')
            .ok_or("expected NAME=LINE, such as `quiet=poll = \"off\"`")?;
        Ok(Self {
            name: name.to_owned(),
            lines: lines.to_owned(),
        })
    }
}

/// A backend and its monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contender {
    name: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// A build of slotvmm, with its own backend.
    Slotvmm {
        program: PathBuf,
        /// Lines for the share in the slot's file.
        lines: String,
    },
    /// QEMU and virtiofsd, as the lab has them.
    Virtiofsd {
        /// Options of virtiofsd, between spaces.
        options: String,
    },
}

impl FromStr for Contender {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text
            .split_once('=')
            .ok_or("expected NAME=PATH, such as before=/tmp/slotvmm")?;
        Ok(Self {
            name: name.to_owned(),
            kind: Kind::Slotvmm {
                program: path.into(),
                lines: String::new(),
            },
        })
    }
}

/// Where a measurement takes place.
#[derive(Debug)]
pub(super) struct Place {
    /// A directory in memory.
    pub(super) dir: PathBuf,
    shared: PathBuf,
    kernel: PathBuf,
}

impl Place {
    /// `dir`, with a copy of the kernel in `from`.
    pub(super) fn prepare(dir: &Path, shared: &Path, from: &Path) -> Result<Self> {
        let kernel = dir.join("kernel");
        fs::create_dir(&kernel)?;
        for name in ["vmlinux", "bzImage", "initrd"] {
            let from = from.join(name);
            fs::copy(&from, kernel.join(name))
                .with_context(|| format!("Cannot copy {}", from.display()))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            shared: shared.to_owned(),
            kernel,
        })
    }
}

/// A contender that is about to run.
pub(super) struct Running {
    /// The monitor.
    pub(super) monitor: Command,
    /// The backend, where the monitor does not start it.
    pub(super) backend: Option<Child>,
}

impl Contender {
    /// Everyone: the build in `program`, the same with a window of `dax` MiB and with the lines of each
    /// of `with`, others `beside` it, and the peer, also with the options of each of `virtiofsd`.
    pub(super) fn all(
        program: &Path,
        dax: Option<u64>,
        with: &[With],
        beside: &[Self],
        virtiofsd: &[With],
    ) -> Vec<Self> {
        let ours = |name: &str, lines: &str| Self {
            name: name.to_owned(),
            kind: Kind::Slotvmm {
                program: program.to_owned(),
                lines: lines.to_owned(),
            },
        };
        let mapping = dax.map(|mib| ours("slotvmm, dax", &format!("dax = {mib}")));
        let with = with
            .iter()
            .map(|with| ours(&format!("slotvmm, {}", with.name), &with.lines));
        let peer = |name: &str, options: &str| Self {
            name: name.to_owned(),
            kind: Kind::Virtiofsd {
                options: options.to_owned(),
            },
        };
        let peers = virtiofsd
            .iter()
            .map(|with| peer(&format!("qemu+virtiofsd, {}", with.name), &with.lines));
        [ours("slotvmm", "")]
            .into_iter()
            .chain(mapping)
            .chain(with)
            .chain(beside.to_vec())
            .chain([peer("qemu+virtiofsd", BEST)])
            .chain(peers)
            .collect()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the backend is no child of the monitor.
    pub(super) fn is_external(&self) -> bool {
        matches!(self.kind, Kind::Virtiofsd { .. })
    }

    /// What to start for a guest in `place`.
    pub(super) fn prepare(&self, place: &Place) -> Result<Running> {
        match &self.kind {
            Kind::Slotvmm { program, lines } => Ok(Running {
                monitor: slotvmm(program, place, (&self.name, lines))?,
                backend: None,
            }),
            Kind::Virtiofsd { options } => {
                let socket = place.dir.join("socket");
                let backend = virtiofsd(place, &socket, options)?;
                Ok(Running {
                    monitor: qemu(place, &socket),
                    backend: Some(backend),
                })
            }
        }
    }
}

fn parameters() -> Vec<String> {
    let mut words: Vec<String> = ["console=ttyS0", "quiet", "panic=-1", "mini.then=poweroff"]
        .map(str::to_owned)
        .into();
    words.push(format!("mini.run={}", STANDARD.encode(SCRIPT)));
    words
}

fn slotvmm(program: &Path, place: &Place, named: (&str, &str)) -> Result<Command> {
    let (name, lines) = named;
    let config = place.dir.join(format!("{name}.d"));
    fs::create_dir_all(config.join("slots"))?;
    let host = ["state", "run", "cache"].map(|kind| {
        let path = config.join(kind);
        format!("{kind}_dir = {path:?}\n")
    });
    fs::write(config.join("host.toml"), host.concat())?;
    let slot = format!(
        "net = []\n[data]\nenabled = false\n[machine]\nmemory = {MEMORY_MIB}\nvcpus = 1\n[boot]\n\
         kernel = {:?}\ninitrd = {:?}\nparams = {:?}\n[[fs]]\ntag = \"share\"\nsource = {:?}\n{lines}\n",
        place.kernel.join("vmlinux"),
        place.kernel.join("initrd"),
        parameters(),
        place.shared,
    );
    fs::write(config.join("slots/slot1.toml"), slot)?;
    let mut command = Command::new(program);
    command.arg("--config").arg(config).args(["run", "slot1"]);
    Ok(command)
}

fn qemu(place: &Place, socket: &Path) -> Command {
    let memory = format!("memory-backend-memfd,id=mem,size={MEMORY_MIB}M,share=on");
    let mut chardev = OsString::from("socket,id=fs,path=");
    chardev.push(socket);
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-M", "q35", "-accel", "kvm", "-cpu", "host", "-nodefaults"])
        .args(["-no-user-config", "-no-reboot", "-display", "none"])
        .args(["-serial", "stdio", "-m", &format!("{MEMORY_MIB}M")])
        .args(["-object", &memory, "-numa", "node,memdev=mem", "-chardev"])
        .arg(chardev)
        .args([
            "-device",
            "vhost-user-fs-pci,chardev=fs,tag=share,queue-size=1024",
        ])
        .arg("-kernel")
        .arg(place.kernel.join("bzImage"))
        .arg("-initrd")
        .arg(place.kernel.join("initrd"))
        .args(["-append", &parameters().join(" ")]);
    command
}

/// Starts it.
fn virtiofsd(place: &Place, socket: &Path, options: &str) -> Result<Child> {
    // One that ended leaves its socket.
    let _ = fs::remove_file(socket);
    let mut command = Command::new("virtiofsd");
    command
        .arg(format!("--shared-dir={}", place.shared.display()))
        .arg(format!("--socket-path={}", socket.display()))
        .args(options.split_whitespace())
        .arg("--log-level=error")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut child = sys::die_with_parent(&mut command)
        .spawn()
        .context("Cannot start virtiofsd")?;
    let deadline = Instant::now() + PATIENCE;
    // It binds and listens in one go; QEMU is not ready to connect any sooner.
    while !socket.exists() {
        ensure!(child.try_wait()?.is_none(), "virtiofsd ended");
        ensure!(Instant::now() < deadline, "virtiofsd does not listen");
        std::thread::yield_now();
    }
    Ok(child)
}
