//! `ssh`, and the hidden verb that `ssh` reaches the guest with.

use std::io::{self, stdout};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use hostnet::slot::SlotName;

use super::{CommandError, Context, name};
use crate::args::{Ssh, VsockConnect};
use crate::exit::Exit;
use crate::resolve::network;
use crate::ssh::{Login, PORT, Way, arguments, dial, hand_over};

/// How long a guest may take to answer on its socket before its address is tried.
const PATIENCE: Duration = Duration::from_secs(5);

/// Logs in to a guest. This process becomes `ssh`.
pub(super) fn ssh(args: &Ssh, context: &Context) -> Result<Exit, CommandError> {
    let (user, slot) = args.slot.rsplit_once('@').unwrap_or(("root", &args.slot));
    let slot = name(slot)?;
    let way = way(&slot, context)?;
    let login = Login {
        user,
        slot: &slot,
        command: &args.command,
    };
    let mut command = Command::new("ssh");
    for option in &args.options {
        command.arg("-o").arg(option);
    }
    if let Some(identity) = &args.identity {
        command.arg("-i").arg(identity);
    }
    let source = command.args(arguments(&way, &login)).exec();
    Err(CommandError::Host {
        action: "run ssh: install openssh-client",
        source,
    })
}

/// What a shell command of a guest's root prints, when an SSH server listens on the slot's socket. Nobody
/// is asked for a password.
///
/// # Errors
/// When the guest cannot be reached, or the command fails.
pub(super) fn ask_guest(slot: &SlotName, context: &Context, command: &str) -> io::Result<String> {
    let run_dir = run_dir(slot, context).map_err(|error| io::Error::other(error.to_string()))?;
    dial(&run_dir.join("vsock.sock"), PORT, Some(PATIENCE)).map_err(io::Error::other)?;
    let key = run_dir.join("ssh_key");
    let way = Way::Socket {
        program: std::env::current_exe()?,
        config: context.config.path().to_owned(),
        key: std::fs::File::open(&key).is_ok().then_some(key),
    };
    let login = Login {
        user: "root",
        slot,
        command: &[command.into()],
    };
    let output = Command::new("ssh")
        .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=5"])
        .args(arguments(&way, &login))
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or("nothing").to_owned();
    Err(io::Error::other(format!(
        "ssh ended with {} and said: {last}",
        output.status
    )))
}

/// The slot's socket when an SSH server listens there, else its address.
fn way(slot: &SlotName, context: &Context) -> Result<Way, CommandError> {
    let socket = run_dir(slot, context)?.join("vsock.sock");
    // That a server listens has to be known before `ssh` is told what to check of it.
    let refused = match dial(&socket, PORT, Some(PATIENCE)) {
        Ok(_) => {
            let key = run_dir(slot, context)?.join("ssh_key");
            return Ok(Way::Socket {
                program: std::env::current_exe()
                    .map_err(CommandError::on("find this program's file"))?,
                config: context.config.path().to_owned(),
                key: std::fs::File::open(&key).is_ok().then_some(key),
            });
        }
        Err(refused) => refused,
    };
    let address = address(slot, context)?;
    eprintln!("{slot}: trying {address} ({refused})");
    Ok(Way::Address(address))
}

fn address(slot: &SlotName, context: &Context) -> Result<std::net::Ipv4Addr, CommandError> {
    let loaded = context.config.slot(slot)?;
    let (network, _) = network(&context.config.host()?, &loaded)?;
    Ok(network.net.guest())
}

/// Connects to a port of a guest and hands the connection to the program on standard output.
pub(super) fn vsock_connect(args: &VsockConnect, context: &Context) -> Result<Exit, CommandError> {
    let slot = name(&args.slot)?;
    let socket = run_dir(&slot, context)?.join("vsock.sock");
    let stream = dial(&socket, args.port, None).map_err(|source| CommandError::Dial {
        slot,
        port: args.port,
        source,
    })?;
    hand_over(&stream, stdout().as_fd()).map_err(CommandError::on(
        "hand the connection over: use `ProxyUseFdpass yes`",
    ))?;
    Ok(Exit::Success)
}

fn run_dir(slot: &SlotName, context: &Context) -> Result<PathBuf, CommandError> {
    Ok(context.paths()?.run_dir.join(slot.as_str()))
}
