//! The throughput measurement's part inside the lab: boots a guest that serves iperf3 with every
//! monitor in turn, and lets iperf3 on the host talk to it, in either direction.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::deadline::Deadline;
use super::slot::Running;
use crate::process;

/// The tap that every monitor uses in turn, one queue, on a bridge with the host's address.
const TAP: &str = "bench0";
const BRIDGE: &str = "br-bench";
const HOST_ADDRESS: &str = "10.1.0.1/24";
const GUEST_ADDRESS: &str = "10.1.0.2";
const MAC: &str = "02:00:00:00:00:01";
const MEMORY_MIB: u32 = 384;
/// Serves until the machine ends, and says when it can be reached.
const SCRIPT: &str = "/iperf/run --server --forceflush";
/// What iperf3 says then.
const LISTENING: &str = "Server listening";

/// A guest that takes longer does not get there at all, nor does a transfer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is measured.
#[derive(Debug, Args)]
pub struct ThroughputArgs {
    /// The slotvmm program.
    #[arg(long)]
    pub program: PathBuf,
    /// The guest's kernel, an ELF file.
    #[arg(long)]
    pub kernel: PathBuf,
    /// Its initial file system, with iperf3 in it.
    #[arg(long)]
    pub initrd: PathBuf,
    /// iperf3 for the host.
    #[arg(long)]
    pub iperf: PathBuf,
    /// Boots per monitor.
    #[arg(long)]
    pub runs: u32,
    /// Seconds per transfer.
    #[arg(long)]
    pub seconds: u32,
}

/// One transfer, printed as a line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// Which monitor.
    pub monitor: String,
    /// From where to where.
    pub direction: String,
    /// What arrived, in Mbit/s.
    pub mbit_s: f64,
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (monitor, direction) = (&self.monitor, &self.direction);
        write!(f, "{monitor}, {direction}: {:.0} Mbit/s", self.mbit_s)
    }
}

#[derive(Clone, Copy, Debug)]
struct Monitor {
    name: &'static str,
    qemu: bool,
    vhost: bool,
}

const MONITORS: [Monitor; 4] = [
    Monitor {
        name: "slotvmm",
        qemu: false,
        vhost: false,
    },
    Monitor {
        name: "qemu",
        qemu: true,
        vhost: false,
    },
    Monitor {
        name: "slotvmm, vhost",
        qemu: false,
        vhost: true,
    },
    Monitor {
        name: "qemu, vhost",
        qemu: true,
        vhost: true,
    },
];

/// Measures every monitor `runs` times, in turns, and prints a [`Transfer`] for each direction.
///
/// # Errors
/// When a guest does not come up or a transfer fails.
pub fn throughput(args: &ThroughputArgs) -> Result<u8> {
    let dir = tempfile::tempdir_in("/run").context("Cannot create a directory in memory")?;
    make_network()?;
    let mut failed: Vec<&str> = Vec::new();
    for round in 1..=args.runs {
        for monitor in MONITORS {
            if failed.contains(&monitor.name) {
                continue;
            }
            match serve(args, monitor, dir.path()) {
                Ok(transfers) => transfers.iter().try_for_each(|transfer| {
                    eprintln!("{round}/{} {transfer}", args.runs);
                    println!("{}", serde_json::to_string(transfer)?);
                    anyhow::Ok(())
                })?,
                Err(error) if monitor.qemu => {
                    eprintln!("skipped: {}: {error:#}", monitor.name);
                    failed.push(monitor.name);
                }
                Err(error) => return Err(error.context(monitor.name)),
            }
        }
    }
    Ok(0)
}

/// Boots a guest and transfers in both directions.
fn serve(args: &ThroughputArgs, monitor: Monitor, dir: &Path) -> Result<Vec<Transfer>> {
    let mut server = Server::start(args, monitor, dir)?;
    let mut transfers = Vec::new();
    for (direction, reverse) in [("host to guest", false), ("guest to host", true)] {
        server.wait_listening().context("It does not serve")?;
        transfers.push(Transfer {
            monitor: monitor.name.to_owned(),
            direction: direction.to_owned(),
            mbit_s: transfer(args, reverse).context(direction)?,
        });
    }
    Ok(transfers)
}

fn make_network() -> Result<()> {
    for step in [
        format!("link add {BRIDGE} type bridge"),
        format!("addr add {HOST_ADDRESS} dev {BRIDGE}"),
        format!("link set {BRIDGE} up"),
        format!("tuntap add {TAP} mode tap vnet_hdr"),
        format!("link set {TAP} master {BRIDGE} up"),
    ] {
        process::output(Command::new("ip").args(step.split(' ')))?;
    }
    Ok(())
}

/// A guest that serves one transfer after the other.
struct Server {
    machine: Running,
    console: BufReader<ChildStdout>,
    errors: PathBuf,
}

impl Server {
    fn start(args: &ThroughputArgs, monitor: Monitor, dir: &Path) -> Result<Self> {
        let mut command = match monitor.qemu {
            true => qemu(args, monitor.vhost),
            false => slotvmm(args, monitor.vhost, dir)?,
        };
        let errors = dir.join("errors");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors)?);
        let mut machine = Running::start(command)?;
        let console = machine.0.stdout.take().context("The console is lost")?;
        Ok(Self {
            machine,
            console: BufReader::new(console),
            errors,
        })
    }

    /// Waits until the next transfer would be served: it listens anew for each. What it says of
    /// one fits into the pipe.
    fn wait_listening(&mut self) -> Result<()> {
        let deadline = Deadline::start(&self.machine.0, PATIENCE);
        let mut said = String::new();
        while !said.contains(LISTENING) && self.console.read_line(&mut said)? > 0 {}
        if !deadline.end() && said.contains(LISTENING) {
            return Ok(());
        }
        let status = self.machine.0.wait()?;
        bail!("{status}: {}{said}", fs::read_to_string(&self.errors)?)
    }
}

fn params() -> Vec<String> {
    let run = STANDARD.encode(SCRIPT);
    let words = format!("console=ttyS0 quiet reboot=k panic=-1 mini.run={run}");
    words.split(' ').map(str::to_owned).collect()
}

fn slotvmm(args: &ThroughputArgs, vhost: bool, dir: &Path) -> Result<Command> {
    let config = dir.join(if vhost { "vhost.d" } else { "own.d" });
    fs::create_dir_all(config.join("slots"))?;
    let host = ["state", "run", "cache"].map(|kind| {
        let path = config.join(kind);
        format!("{kind}_dir = {path:?}\n")
    });
    fs::write(config.join("host.toml"), host.concat())?;
    let slot = format!(
        "[data]\nenabled = false\n[machine]\nmemory = {MEMORY_MIB}\n\
         [boot]\nkernel = {:?}\ninitrd = {:?}\nparams = {:?}\n\
         [[net]]\ntap = \"{TAP}\"\nbridge = \"{BRIDGE}\"\nmac = \"{MAC}\"\nvhost = {vhost}\n",
        args.kernel,
        args.initrd,
        params(),
    );
    fs::write(config.join("slots/slot1.toml"), slot)?;
    let mut command = Command::new(&args.program);
    command.arg("--config").arg(config).args(["run", "slot1"]);
    Ok(command)
}

fn qemu(args: &ThroughputArgs, vhost: bool) -> Command {
    let vhost = if vhost { "on" } else { "off" };
    let mut command = Command::new("qemu-system-x86_64");
    command.args(
        "-M microvm,accel=kvm,isa-serial=on,rtc=on -cpu host -smp 1 -nodefaults -no-user-config \
         -no-reboot -display none -serial stdio -global virtio-mmio.force-legacy=false"
            .split_whitespace(),
    );
    command.arg("-m").arg(MEMORY_MIB.to_string());
    command.arg("-kernel").arg(&args.kernel);
    command.arg("-initrd").arg(&args.initrd);
    command.arg("-append").arg(params().join(" "));
    command.arg("-netdev").arg(format!(
        "tap,id=net,ifname={TAP},script=no,downscript=no,vhost={vhost}"
    ));
    command.arg("-device");
    command.arg(format!("virtio-net-device,netdev=net,mac={MAC}"));
    command
}

/// One transfer; what arrived, in Mbit/s.
fn transfer(args: &ThroughputArgs, reverse: bool) -> Result<f64> {
    let mut client = Command::new(&args.iperf);
    client
        .args(["--client", GUEST_ADDRESS, "--json", "--time"])
        .arg(args.seconds.to_string());
    if reverse {
        client.arg("--reverse");
    }
    client.stdout(Stdio::piped());
    let client = client.spawn().context("Cannot start iperf3")?;
    let deadline = Deadline::start(&client, PATIENCE);
    let output = client.wait_with_output()?;
    if deadline.end() {
        bail!("iperf3 hangs");
    }
    let report: Value = serde_json::from_slice(&output.stdout)?;
    if let Some(error) = report["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(rate.context("iperf3 reports no rate")? / 1e6)
}
