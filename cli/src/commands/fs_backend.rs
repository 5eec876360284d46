//! `fs-backend`: serves a directory to a guest, read-only.

use std::os::fd::OwnedFd;

use fs_backend::sandbox::Sandbox;
use fs_backend::server::{Cache, Xattr};
use fs_backend::{Endpoint, Options, Succession};

use super::CommandError;
use crate::args::{self, FsBackend};
use crate::exit::Exit;

/// Serves until the frontend is gone.
pub(super) fn fs_backend(args: &FsBackend) -> Result<Exit, CommandError> {
    fs_backend::run(Options {
        endpoint: endpoint(args)?,
        source: args.source.clone(),
        cache: match args.cache {
            args::Cache::Always => Cache::Always,
            args::Cache::Auto => Cache::Auto,
            args::Cache::Never => Cache::Never,
        },
        xattr: if args.xattr {
            Xattr::Shown
        } else {
            Xattr::Hidden
        },
        succession: if args.journal {
            Succession::Journal
        } else {
            Succession::None
        },
        window: args.dax.map(|mib| mib << 20),
        queues: args.threads,
        poll: args.poll,
        sandbox: match args.sandbox {
            args::Sandbox::Namespace => Sandbox::Namespace,
            args::Sandbox::Landlock => Sandbox::Landlock,
            args::Sandbox::None => Sandbox::None,
        },
    })?;
    Ok(Exit::Success)
}

fn endpoint(args: &FsBackend) -> Result<Endpoint, CommandError> {
    match (&args.socket, args.fd) {
        (Some(path), _) => Ok(Endpoint::Path(path.clone())),
        (None, fd) => {
            let socket: OwnedFd = fs_backend::inherited(fd.unwrap_or_default())
                .map_err(CommandError::on("use the descriptor of --fd"))?;
            Ok(Endpoint::Listener(socket))
        }
    }
}
