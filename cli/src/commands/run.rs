//! `run`: one slot, from its configuration to the end of its guest.

use std::fs::File;
use std::io::{self, stdout};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use devices::registry::HostHandles;
use devices::vsock::VsockHost;
use devices::{credentials::PORT as CREDENTIALS, notify};
use nix::sys::signalfd::SignalFd;
use serde::Serialize;
use vmm::console::ConsoleEnds;
use vmm::kvm::{HostPolicy, Opening};
use vmm::phases::{Phase, Phases};
use vmm::readiness::ReadinessInfo;
use vmm::vm::BootOptions;
use vmm::{Outcome, Vm};

use super::phases::Phases as PhaseReport;
use super::{CommandError, Context, net};
use crate::args::Run;
use crate::boot_record;
use crate::console::{End, block_signals, relay};
use crate::credentials;
use crate::disk;
use crate::exit::Exit;
use crate::output::{Format, Report as _, print, print_text};
use crate::readiness;
use crate::resolve::{Slot, plan};
use crate::rundir::RunDir;
use crate::share;
use crate::ssh;
use crate::tap;
use crate::vsock;

/// Runs a slot until its guest is done.
///
/// Everything that can be wrong without a machine is found before there is one: the files, then
/// the slot's lock, its credentials, its network, its disks, its taps, and only then KVM.
pub(super) fn run(args: &Run, context: &Context) -> Result<Exit, CommandError> {
    let phases = Arc::new(Phases::since(context.started));
    // First of all, because it takes as long as everything up to `Vm::boot`.
    let kvm = Opening::start(host_policy(args)).map_err(CommandError::on("open KVM"))?;
    let (host, slot) = context.slot(&args.slot)?;
    let run_dir = claim(&slot)?;
    let credentials = credentials::open(&slot)?;
    net::ensure(&host, &slot)?;
    let (mut handles, renewed) = open_handles(&slot)?;
    let mut config = plan::vm_config(&slot);
    config.boot.params.extend(renewed);
    config.oem_strings = credentials.oem_strings;
    let readiness =
        readiness::board(&slot.ready, &phases).map_err(CommandError::on("watch the guest"))?;
    if let Some(vsock) = &slot.vsock {
        if vsock.ssh {
            let key = ssh::issue(run_dir.ssh_key());
            let key = key.map_err(CommandError::on("make the key for `slotvmm ssh`"))?;
            config.oem_strings.push(key);
        }
        let mut services = vsock::Services::new();
        services.insert(CREDENTIALS, Box::new(credentials.service));
        let notify = notify::NotifyService::new(readiness.clone());
        services.insert(notify::PORT, Box::new(notify));
        handles.add_vsock(plan::vsock_id(), vsock_host(&slot, &run_dir, services)?);
    }
    let sockets = run_dir.bind().map_err(in_run_dir(&slot))?;
    let mut console = ConsoleEnds {
        listener: Some(sockets.console),
        ..ConsoleEnds::default()
    };
    let mut terminal = Terminal::connect(args, context, &mut console)?;
    phases.stamp(Phase::Config);
    let options = BootOptions {
        phases: Arc::clone(&phases),
        console,
        control: Some(sockets.control),
        kvm,
        readiness: Arc::clone(&readiness),
        supervision: readiness::supervision(&slot.ready),
    };
    let vm = Vm::boot(&config, handles, options)?;
    // With the secrets that are in the machine's tables by now.
    drop(config);
    terminal.start()?;
    readiness::probe(&slot.ready, &readiness).map_err(CommandError::on("watch the guest"))?;
    let outcome = vm.run();
    // Before anything is printed: the terminal is raw until then.
    terminal.finish()?;
    let outcome = outcome?;
    boot_record::save(&slot, outcome, &phases);
    report(args, context, outcome, &phases).map_err(CommandError::on("print the result"))?;
    Ok(exit(&slot, outcome, &readiness.info()))
}

/// The host's side of the socket device.
fn vsock_host(
    slot: &Slot,
    run_dir: &RunDir,
    services: vsock::Services,
) -> Result<VsockHost, CommandError> {
    let listener = run_dir.bind_vsock().map_err(in_run_dir(slot))?;
    Ok(vsock::host(listener, &slot.paths.vsock_socket, services))
}

fn host_policy(args: &Run) -> HostPolicy {
    if args.ignore_cpu_check {
        HostPolicy::Any
    } else {
        HostPolicy::Hardware
    }
}

fn claim(slot: &Slot) -> Result<RunDir, CommandError> {
    RunDir::claim(&slot.paths).map_err(in_run_dir(slot))
}

fn in_run_dir(slot: &Slot) -> impl Fn(crate::rundir::RunDirError) -> CommandError {
    move |source| CommandError::RunDir {
        slot: slot.name.clone(),
        source,
    }
}

/// Opens every disk and tap, and starts the backends of shares. Returns also what the state that was
/// opened has its guest be told.
fn open_handles(slot: &Slot) -> Result<(HostHandles, Option<String>), CommandError> {
    let mut handles = HostHandles::default();
    let mut renewed = None;
    // Backends first: they get ready while everything else is opened.
    for share in &slot.shares {
        handles.add_fs(
            plan::share_id(share),
            share::open(share, &slot.paths.run_dir)?,
        );
    }
    for disk in &slot.disks {
        let image = disk::open(disk)?;
        if disk.is_data() {
            renewed = store::identity::number_of(&image).map(plan::reset_identity);
        }
        handles.add_disk(plan::disk_id(disk), image);
    }
    for nic in &slot.nics {
        handles.add_net(plan::nic_id(nic), tap::open(nic)?);
    }
    Ok((handles, renewed))
}

/// This process's end of the guest's console.
enum Terminal {
    /// Output only, written by the machine itself.
    Output,
    /// A relay that is to be started.
    Waiting(UnixStream, SignalFd),
    /// A relay at work.
    Relaying(JoinHandle<io::Result<End>>),
}

impl Terminal {
    /// Decides where the console leads. In JSON form, standard output belongs to the result.
    fn connect(
        args: &Run,
        context: &Context,
        ends: &mut ConsoleEnds,
    ) -> Result<Self, CommandError> {
        let failed = CommandError::on("connect the console");
        if !args.console {
            if context.format == Format::Text {
                // A descriptor of its own: the standard library's would hold back half lines.
                let output = stdout().as_fd().try_clone_to_owned().map_err(&failed)?;
                ends.output = Some(Box::new(File::from(output)));
            }
            return Ok(Self::Output);
        }
        let (ours, guests) = UnixStream::pair().map_err(&failed)?;
        ends.client = Some(guests);
        // Blocked before the machine starts its threads, which inherit it. The signals that end a
        // machine are the machine's own.
        let signals = block_signals(&[]).map_err(failed)?;
        Ok(Self::Waiting(ours, signals))
    }

    /// Starts to relay, once the machine stands: an error before that finds a plain terminal.
    fn start(&mut self) -> Result<(), CommandError> {
        let (socket, signals) = match std::mem::replace(self, Self::Output) {
            Self::Waiting(socket, signals) => (socket, signals),
            other => {
                *self = other;
                return Ok(());
            }
        };
        let thread = thread::Builder::new()
            .name("terminal".to_owned())
            .spawn(move || {
                let end = relay(socket, &signals)?;
                if end == End::Detached {
                    eprintln!("\nDetached; the guest goes on, Ctrl-C presses its power button");
                }
                Ok(end)
            })
            .map_err(CommandError::on("start the console"))?;
        *self = Self::Relaying(thread);
        Ok(())
    }

    /// Waits until the terminal is as it was. The machine is gone, so the relay's socket is closed.
    fn finish(self) -> Result<(), CommandError> {
        let Self::Relaying(thread) = self else {
            return Ok(());
        };
        match thread.join() {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(CommandError::on("relay the console")(error)),
            Err(_) => Err(CommandError::on("relay the console")(io::Error::other(
                "it panicked",
            ))),
        }
    }
}

#[derive(Serialize)]
struct Ended {
    outcome: Outcome,
    #[serde(flatten)]
    phases: PhaseReport,
}

fn report(args: &Run, context: &Context, outcome: Outcome, phases: &Phases) -> io::Result<()> {
    let phases = PhaseReport {
        phases: phases.stamps(),
    };
    match context.format {
        Format::Json => print(&Ended { outcome, phases }, Format::Json),
        Format::Text if args.phases => print_text(&phases.text()),
        Format::Text => Ok(()),
    }
}

impl crate::output::Report for Ended {
    fn text(&self) -> String {
        self.phases.text()
    }
}

/// The exit code; says why when it is not the usual one.
fn exit(slot: &Slot, outcome: Outcome, readiness: &ReadinessInfo) -> Exit {
    let (exit, what) = match outcome {
        Outcome::Poweroff => return Exit::Success,
        Outcome::Reboot => (Exit::Reboot, "the guest asked for a reboot"),
        Outcome::Panic => (Exit::Panic, "the guest's kernel panicked"),
        Outcome::TripleFault => (Exit::TripleFault, "the guest ran into a triple fault"),
        Outcome::Killed => (Exit::Stopped, "the guest was stopped hard"),
        Outcome::NotReady => (Exit::NotReady, readiness.status.as_str()),
    };
    eprintln!("{}: {what}", slot.name);
    exit
}
