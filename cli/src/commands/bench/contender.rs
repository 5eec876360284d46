//! How each monitor boots the machine that is staged: ours through the command line as users do, peers
//! as theirs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use boot_bench::boot::{Helper, Launch, Listener, Mark, Run, Stop};
use boot_bench::peer::{Peer, share_socket};
use boot_bench::series::Contender;
use devices::notify::PORT as NOTIFY;
use hostnet::slot::SlotName;
use tempfile::TempDir;
use vmm::phases::Phase;

use super::berth::Berth;
use super::prepare::Stage;
use crate::args::BenchBoot;
use crate::boot_record;
use crate::client::{Ask, Client};
use crate::resolve::{ReadyWhen, Slot};
use crate::share;

/// A build of slotvmm.
pub(super) struct Ours<'a> {
    name: String,
    program: PathBuf,
    stage: &'a Stage,
    berth: &'a Berth,
    slot: &'a Slot,
    arguments: Vec<OsString>,
    shut_down: Box<dyn Fn() -> io::Result<()> + Sync + 'a>,
}

impl<'a> Ours<'a> {
    pub(super) fn new(
        name: &str,
        program: PathBuf,
        (stage, berth, slot): (&'a Stage, &'a Berth, &'a Slot),
        args: &BenchBoot,
    ) -> Self {
        let mut arguments: Vec<OsString> = vec!["--config".into(), berth.config().into()];
        arguments.push("run".into());
        if args.ignore_cpu_check {
            arguments.push("--ignore-cpu-check".into());
        }
        arguments.push(slot.name.as_str().into());
        let socket = run_dir(berth, &slot.name).join("control.sock");
        let client = Client::new(slot.name.clone(), socket);
        Self {
            name: name.to_owned(),
            program,
            stage,
            berth,
            slot,
            arguments,
            // Not the power button: how long a guest takes to go is not a matter of its boot.
            shut_down: Box::new(move || client.tell(Ask::Shutdown).map_err(io::Error::other)),
        }
    }
}

fn run_dir(berth: &Berth, slot: &SlotName) -> PathBuf {
    berth.config().join("run").join(slot.as_str())
}

impl Contender for Ours<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn program(&self) -> PathBuf {
        self.program.clone()
    }

    fn launch(&self) -> io::Result<Launch<'_>> {
        self.berth.fresh_disks()?;
        self.stage.cards.fresh()?;
        let mut environment = Vec::new();
        let mut listener = None;
        if let ReadyWhen::Notify(_) = self.slot.ready.when {
            let path = self.berth.config().join("notify");
            remove(&path)?;
            listener = Some(Listener::of_monitor(&path)?);
            environment.push(("NOTIFY_SOCKET".into(), path.into()));
        }
        remove(&boot_record::path(&run_dir(self.berth, &self.slot.name)))?;
        Ok(Launch {
            program: self.program.clone(),
            arguments: self.arguments.clone(),
            environment,
            helpers: Vec::new(),
            listener,
            stop: Stop::Ask(&self.shut_down),
        })
    }

    /// What its phases say of points that do not show from outside.
    fn own_marks(&self, run: &Run) -> BTreeMap<Mark, f64> {
        let Ok(record) = boot_record::load(&run_dir(self.berth, &self.slot.name)) else {
            return BTreeMap::new();
        };
        let exec_ms = record.exec_ns.saturating_sub(run.started_ns) as f64 / 1e6;
        let marks = record.phases.iter().filter_map(|stamp| {
            let mark = match stamp.phase {
                Phase::VcpuRun => Mark::VcpuRun,
                Phase::Init => Mark::Init,
                Phase::Sysinit => Mark::Sysinit,
                _ => return None,
            };
            Some((mark, exec_ms + stamp.at_us as f64 / 1e3))
        });
        marks.collect()
    }
}

/// Somebody else's monitor.
pub(super) struct Other<'a> {
    peer: Peer,
    /// Our own program.
    own: PathBuf,
    stage: &'a Stage,
    slot: &'a Slot,
    /// Of the boot that was prepared last.
    dir: RefCell<Option<TempDir>>,
}

impl<'a> Other<'a> {
    pub(super) fn new(peer: Peer, own: PathBuf, (stage, slot): (&'a Stage, &'a Slot)) -> Self {
        Self {
            peer,
            own,
            stage,
            slot,
            dir: RefCell::new(None),
        }
    }

    /// Who serves the slot's shares where the monitor, whose files are in `dir`, connects to: our own
    /// backends, as ours have them.
    fn backends(&self, dir: &Path) -> io::Result<Vec<Helper>> {
        let served = self.slot.shares.iter().enumerate();
        let helpers = served.filter_map(|(index, share)| {
            let arguments = share::backend_arguments(share)?;
            let socket = UnixListener::bind(share_socket(dir, index));
            Some(socket.map(|socket| Helper {
                program: self.own.clone(),
                arguments,
                socket,
            }))
        });
        helpers.collect()
    }
}

impl Contender for Other<'_> {
    fn name(&self) -> &str {
        &self.peer.name
    }

    fn program(&self) -> PathBuf {
        self.peer.program.clone()
    }

    fn launch(&self) -> io::Result<Launch<'_>> {
        self.stage.berth.fresh_disks()?;
        let nics = &self.stage.machine.nics;
        self.stage
            .cards
            .fresh_for(nics, |nic| self.peer.queues(nic))?;
        let dir = self.stage.boot_dir()?;
        let listener = match &self.slot.ready.when {
            ReadyWhen::Notify(target) => {
                let port = self.peer.guest_port(dir.path(), NOTIFY);
                Some(Listener::of_guest(&port, target.clone())?)
            }
            _ => None,
        };
        let arguments = self.peer.arguments(&self.stage.machine, dir.path())?;
        let helpers = self.backends(dir.path())?;
        self.dir.replace(Some(dir));
        Ok(Launch {
            program: self.peer.program.clone(),
            arguments,
            environment: Vec::new(),
            helpers,
            listener,
            stop: Stop::Signal,
        })
    }

    /// It says nothing of itself.
    fn own_marks(&self, _run: &Run) -> BTreeMap<Mark, f64> {
        BTreeMap::new()
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
