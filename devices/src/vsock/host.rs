//! What a socket device gets from the host.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};

use super::service::Service;

/// Leads from a port that the guest connects to, to a stream of the host.
pub trait Dial: fmt::Debug + Send {
    /// Connects without blocking; called on the device's thread.
    ///
    /// # Errors
    /// When nobody listens for that port. The guest's program sees a reset.
    fn dial(&mut self, port: u32) -> io::Result<UnixStream>;
}

/// The host's side of a socket device.
#[derive(Default)]
pub struct VsockHost {
    /// Where programs of the host ask for ports of the guest; without it they cannot.
    pub listener: Option<UnixListener>,
    /// Reaches programs of the host that listen for the guest; without it there are none.
    pub dial: Option<Box<dyn Dial>>,
    /// What this process answers itself, by port. A service comes before whoever else listens.
    pub services: BTreeMap<u32, Box<dyn Service>>,
}

impl fmt::Debug for VsockHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VsockHost")
            .field("listener", &self.listener)
            .field("dial", &self.dial)
            .field("services", &self.services.keys())
            .finish()
    }
}
