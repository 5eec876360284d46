//! One file per verb. Each takes what was typed and the [`Context`], and returns how it ended.

mod bench;
mod boot_report;
mod completion;
mod config;
mod console;
mod creds;
mod doctor;
mod dry_run;
mod error;
mod fs_backend;
mod lifecycle;
mod list;
mod net;
mod phases;
mod run;
mod ssh;
mod state;
mod status;
mod stop;
mod unit;

use std::path::Path;
use std::time::Instant;

use hostnet::slot::{NameError, SlotName};

pub(crate) use self::error::CommandError;
pub(crate) use self::state::{Colours, tagged};
use crate::args::{Below, Command, Global};
use crate::client::Client;
use crate::config::{ConfigDir, HostFile, LoadedSlot};
use crate::exit::Exit;
use crate::output::Format;
use crate::resolve::{Paths, Slot};

/// As what the program was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    /// `slotvmm`
    Slotvmm,
    /// `vm-state`, with the messages that users of that know.
    VmState,
}

/// What every command needs.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where the configuration lies.
    pub(crate) config: ConfigDir,
    /// How to print.
    pub(crate) format: Format,
    /// As what it speaks.
    pub(crate) voice: Voice,
    /// When the process started.
    pub(crate) started: Instant,
}

impl Context {
    /// From the options of every command.
    pub(crate) fn new(global: &Global, started: Instant) -> Self {
        let format = if global.json {
            Format::Json
        } else {
            Format::Text
        };
        Self {
            config: ConfigDir::new(global.config.clone()),
            format,
            voice: Voice::Slotvmm,
            started,
        }
    }

    /// The same context, for a verb whose output is no report.
    fn text_only(&self, verb: &'static str) -> Result<&Self, CommandError> {
        match self.format {
            Format::Text => Ok(self),
            Format::Json => Err(CommandError::NoJson { verb }),
        }
    }

    /// The slot that `argument` names: a slot's name, or the path of its file.
    fn slot(&self, argument: &str) -> Result<(HostFile, Slot), CommandError> {
        let host = self.config.host()?;
        let loaded = self.load(argument)?;
        let slot = Slot::resolve(&host, &loaded)?;
        Ok((host, slot))
    }

    fn load(&self, argument: &str) -> Result<LoadedSlot, CommandError> {
        let is_path = argument.contains('/')
            || Path::new(argument)
                .extension()
                .is_some_and(|ext| ext == "toml" || ext == "json");
        Ok(if is_path {
            self.config.slot_file(Path::new(argument))?
        } else {
            self.config.slot(&name(argument)?)?
        })
    }

    /// The directories of this host.
    fn paths(&self) -> Result<Paths, CommandError> {
        Ok(Paths::of(&self.config.host()?))
    }

    /// The control socket of a running slot. Its own file is not read: a slot can be stopped
    /// while its file is being edited.
    fn client(&self, argument: &str) -> Result<Client, CommandError> {
        let name = name(argument)?;
        let socket = self.paths()?.control_socket(&name);
        Ok(Client::new(name, socket))
    }
}

fn name(argument: &str) -> Result<SlotName, NameError> {
    argument.parse()
}

/// Does what was asked.
///
/// # Errors
/// When it cannot be done; the error knows its exit code.
pub(crate) fn dispatch(command: &Command, context: &Context) -> Result<Exit, CommandError> {
    match command {
        Command::Run(args) if args.dry_run => dry_run::dry_run(args, context),
        Command::Run(args) => run::run(args, context),
        Command::Stop(args) => stop::stop(args, context),
        Command::Start(args) => unit::start(args, context),
        Command::Restart(args) => unit::restart(args, context),
        Command::Logs(args) => {
            context.text_only("logs")?;
            unit::logs(args)
        }
        Command::Pause(args) => lifecycle::pause(args, context),
        Command::Resume(args) => lifecycle::resume(args, context),
        Command::Status(args) => status::status(args, context),
        Command::BootReport(args) => boot_report::boot_report(args, context),
        Command::List => list::list(context),
        Command::Console(args) => console::console(args, context.text_only("console")?),
        Command::Ssh(args) => ssh::ssh(args, context.text_only("ssh")?),
        Command::VsockConnect(args) => {
            ssh::vsock_connect(args, context.text_only("vsock-connect")?)
        }
        Command::Snapshot(args) => state::snapshot(args, context),
        Command::State(Below { verb }) => state::state(verb, context),
        Command::Config(Below { verb }) => config::config(verb, context),
        Command::Net(Below { verb }) => net::net(verb, context),
        Command::Creds(Below { verb }) => creds::creds(verb, context),
        Command::FsBackend(args) => {
            context.text_only("fs-backend")?;
            fs_backend::fs_backend(args)
        }
        Command::Bench(Below { verb }) => bench::bench(verb, context),
        Command::Doctor(args) => doctor::doctor(args, context),
        Command::Completion(args) => {
            context.text_only("completion")?;
            completion::completion(args)
        }
        Command::Version => completion::version(context),
    }
}
