//! Processes that have to run before a monitor can, such as who serves a shared directory.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::BootError;
use crate::sys;

/// Such a process. Starting it is part of the boot; it is ended when the monitor is gone, and what it
/// used is not counted.
#[derive(Debug)]
pub struct Helper {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its standard input: where the monitor connects to. It listens already, so that nobody waits.
    pub socket: UnixListener,
}

/// Those of one boot. They do not outlive this value.
#[derive(Debug, Default)]
pub(super) struct Helpers(Vec<Child>);

impl Helpers {
    /// Starts them, one after the other. What they complain of goes to `errors`.
    pub(super) fn start(wanted: Vec<Helper>, errors: &File) -> Result<Self, BootError> {
        let mut started = Self::default();
        for helper in wanted {
            let errors = errors.try_clone().map_err(BootError::Watch)?;
            let mut command = Command::new(&helper.program);
            command
                .args(helper.arguments)
                .stdin(Stdio::from(OwnedFd::from(helper.socket)))
                .stdout(Stdio::null())
                .stderr(errors);
            let child = sys::die_with_parent(&mut command).spawn();
            started.0.push(child.map_err(|source| BootError::Start {
                program: helper.program,
                source,
            })?);
        }
        Ok(started)
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Either fails only when it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
