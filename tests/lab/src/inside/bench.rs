//! `bench`'s part inside the lab: writes a slot's configuration as its user would, and lets `slotvmm bench
//! boot` do the rest. Everything that a boot opens lies in memory: a wait for the machine's disk would
//! count.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use boot_bench::peer::Kind;
use clap::Args;
use toml::{Table, Value};

use super::monitors::Peer;
use super::portable;
use super::slot::SLOT;
use crate::host::RESULTS_VARIABLE;
use crate::sys;

/// What is booted.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The slotvmm program.
    #[arg(long)]
    pub program: PathBuf,
    /// Root of the lab's tools.
    #[arg(long)]
    pub tools: PathBuf,
    /// Directory of a kernel with the mini guest's initrd.
    #[arg(long, required_unless_present = "bootstrap")]
    pub kernel: Option<PathBuf>,
    /// Bootstrap of a Debian with systemd.
    #[arg(long)]
    pub bootstrap: Option<PathBuf>,
    /// Timed boots of each monitor.
    #[arg(long)]
    pub boots: u32,
    /// Seconds that a boot may take.
    #[arg(long)]
    pub patience: u64,
    /// Other monitors, as NAME=PATH.
    #[arg(long = "peer")]
    pub peers: Vec<Peer>,
    /// Start so many machines at once instead.
    #[arg(long)]
    pub together: Option<u32>,
    /// When a boot is over.
    #[arg(long)]
    pub until: Option<String>,
    /// Lines of the slot's file besides.
    #[arg(long = "set")]
    pub set: Vec<Table>,
}

/// Runs `slotvmm bench boot` and returns its exit status.
///
/// # Errors
/// When files cannot be copied to memory, or slotvmm cannot be started.
pub fn bench(args: &BenchArgs) -> Result<u8> {
    let dir = tempfile::tempdir_in("/run").context("Cannot create a directory in memory")?;
    let program = portable::program(&args.program, dir.path(), "slotvmm")?;
    let slot = match (&args.kernel, &args.bootstrap) {
        (_, Some(bootstrap)) => systemd(&in_memory(bootstrap, dir.path())?),
        (Some(kernel), None) => mini(
            &in_memory(&kernel.join("vmlinux"), dir.path())?,
            &in_memory(&kernel.join("initrd"), dir.path())?,
        ),
        (None, None) => anyhow::bail!("Neither a kernel nor a bootstrap is named"),
    };
    let mut slot: Table = slot.parse().context("The slot's file is not TOML")?;
    for table in &args.set {
        merge(&mut slot, table);
    }
    configure(dir.path(), &slot)?;
    let mut command = Command::new(program);
    command.arg("--config").arg(dir.path().join("etc"));
    command.args(["-v", "bench", "boot", SLOT]);
    command.args(["--boots", &args.boots.to_string(), "--timeout"]);
    command.arg(args.patience.to_string());
    command.args(["--mark", "init=MINI init"]);
    command.arg("--scratch").arg(dir.path());
    match args.together {
        Some(machines) => drop(command.args(["--together", &machines.to_string()])),
        None => {
            command.args(["--compare", "none"]);
            for peer in peers(args, dir.path())? {
                command.args(["--peer", &peer]);
            }
        }
    }
    if let Some(until) = &args.until {
        command.args(["--until", until]);
    }
    if let Some(results) = std::env::var_os(RESULTS_VARIABLE).map(PathBuf::from) {
        command.arg("--save").arg(results.join("report.json"));
        if args.together.is_none() {
            command.arg("--html").arg(results.join("report.html"));
        }
    }
    let status = sys::die_with_parent(&mut command)
        .status()
        .context("Cannot start slotvmm")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(u8::MAX))
}

/// The peers, with their programs in memory: those that were named, and the lab's QEMU.
fn peers(args: &BenchArgs, dir: &Path) -> Result<Vec<String>> {
    let mut peers = Vec::new();
    for peer in &args.peers {
        let place = portable::program(&peer.path, dir, &peer.name)?;
        peers.push(format!("{}={}", peer.name, place.display()));
    }
    if !args.peers.iter().any(|peer| peer.is(Kind::Qemu)) {
        let place = portable::qemu(&args.tools, &dir.join("qemu.d"))?;
        peers.push(format!("{}={}", Kind::Qemu, place.display()));
    }
    Ok(peers)
}

fn in_memory(file: &Path, dir: &Path) -> Result<PathBuf> {
    let copy = dir.join(file.file_name().context("A file without a name")?);
    fs::copy(file, &copy).with_context(|| format!("Cannot copy {}", file.display()))?;
    Ok(copy)
}

/// The mini guest, which ends its machine as soon as its init has looked around. It has one disk.
fn mini(kernel: &Path, initrd: &Path) -> String {
    format!(
        "[boot]\nkernel = {kernel:?}\ninitrd = {initrd:?}\n\
         params = [\"console=ttyS0\", \"quiet\", \"panic=-1\", \"mini.then=reboot\"]\n\
         [machine]\nmemory = 256\n[data]\nsize = 16\n[vsock]\nenabled = false\n"
    )
}

/// Debian 13, whose systemd reports by the socket device. That device's driver is a module.
fn systemd(bootstrap: &Path) -> String {
    format!(
        "[boot]\nbootstrap = {bootstrap:?}\n\
         params = [\"rd.driver.pre=vmw_vsock_virtio_transport\"]\n\
         [machine]\nmemory = 512\n[data]\nsize = 256\n[ready]\nwhen = \"notify\"\n"
    )
}

/// `more` over `table`; tables within are merged as well.
fn merge(table: &mut Table, more: &Table) {
    for (key, value) in more {
        match (table.get_mut(key), value) {
            (Some(Value::Table(inner)), Value::Table(more)) => merge(inner, more),
            _ => drop(table.insert(key.clone(), value.clone())),
        }
    }
}

/// Writes the files of a host with one slot.
fn configure(dir: &Path, slot: &Table) -> Result<()> {
    let slots = dir.join("etc/slots");
    fs::create_dir_all(&slots)?;
    let host = ["state", "run", "cache"].map(|kind| {
        let path = dir.join(kind);
        fs::create_dir_all(&path).map(|()| format!("{kind}_dir = {path:?}\n"))
    });
    let host: Result<Vec<String>, _> = host.into_iter().collect();
    fs::write(dir.join("etc/host.toml"), host?.concat())?;
    fs::write(slots.join(format!("{SLOT}.toml")), toml::to_string(slot)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_lines_replace_those_of_the_guest_and_leave_the_rest() {
        let mut slot: Table = mini(Path::new("/k"), Path::new("/i")).parse().unwrap();
        let more: Table = "machine.vcpus = 2\nboot.params = []".parse().unwrap();
        merge(&mut slot, &more);
        assert_eq!(slot["machine"]["memory"], Value::Integer(256));
        assert_eq!(slot["machine"]["vcpus"], Value::Integer(2));
        assert_eq!(slot["boot"]["params"], Value::Array(Vec::new()));
        assert_eq!(slot["boot"]["kernel"], Value::String("/k".to_owned()));
    }

    #[test]
    fn configuration_is_written_where_slotvmm_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let slot: Table = systemd(Path::new("/b")).parse().unwrap();
        configure(dir.path(), &slot).unwrap();
        let text = fs::read_to_string(dir.path().join("etc/slots/slot1.toml")).unwrap();
        assert!(text.contains("bootstrap = \"/b\""), "{text}");
        assert!(dir.path().join("etc/host.toml").exists());
    }
}
