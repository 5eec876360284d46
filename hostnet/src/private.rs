//! A network of one's own, with bridges and taps in it and nothing else: machines that are only measured have their
//! cards there. It needs no root and leaves no trace in the host's network.

use std::fs;
use std::io;

use ipnet::Ipv4Net;
use rustix::process::{getegid, geteuid};
use rustix::thread::UnshareFlags;

use crate::apply::{self, ApplyError};
use crate::inspect;
use crate::netlink::block_on;
use crate::plan::Operation;
use crate::slot::InterfaceName;
use crate::sys;
use crate::tap::{self, Form};

/// A network namespace, in which the calling thread and every process that it starts from now on are.
/// It goes with the last of them.
#[derive(Debug)]
pub struct PrivateNetwork {
    user: u32,
}

/// A bridge with the host's address, which a guest finds as its gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateBridge {
    /// Its name.
    pub name: InterfaceName,
    /// The address.
    pub address: Ipv4Net,
}

/// A tap that a machine attaches to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateTap {
    /// Its name.
    pub name: InterfaceName,
    /// How often it can be attached to.
    pub form: Form,
    /// The bridge that it is in.
    pub bridge: Option<InterfaceName>,
}

impl PrivateNetwork {
    /// Leaves the host's network for good. Who may not do that, as users other than root, makes a
    /// user namespace as well; the process must have one thread only then.
    ///
    /// # Errors
    /// When the host refuses both.
    pub fn enter() -> Result<Self, PrivateError> {
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        if let Err(error) = sys::unshare(UnshareFlags::NEWNET) {
            if error.kind() != io::ErrorKind::PermissionDenied {
                return Err(PrivateError::Enter(error));
            }
            sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)
                .map_err(PrivateError::Enter)?;
            let write = |path: &str, text: String| fs::write(path, text);
            // Groups that are not mapped still count where files are opened.
            write("/proc/self/setgroups", "deny".to_owned())
                .and_then(|()| write("/proc/self/uid_map", format!("{user} {user} 1")))
                .and_then(|()| write("/proc/self/gid_map", format!("{group} {group} 1")))
                .map_err(PrivateError::Enter)?;
        }
        Ok(Self { user })
    }

    /// Makes a bridge that is up.
    ///
    /// # Errors
    /// When the host refuses, or there is one of that name.
    pub fn bridge(&self, wanted: &PrivateBridge) -> Result<(), PrivateError> {
        let name = || wanted.name.clone();
        let address = wanted.address;
        self.run(&[
            Operation::CreateBridge { name: name() },
            Operation::AddAddress {
                name: name(),
                address,
            },
            Operation::SetUp { name: name() },
        ])
    }

    /// Makes a tap that is up, for the user of this process, in place of one of that name: nothing of
    /// what was set at that or waits in it is left. Nobody may be attached to it.
    ///
    /// # Errors
    /// When the host refuses, has no tun driver, or there is no such bridge.
    pub fn tap(&self, wanted: &PrivateTap) -> Result<(), PrivateError> {
        let name = || wanted.name.clone();
        let old = block_on(async |handle| inspect::message(&handle, &wanted.name).await);
        if old.flatten().map_err(PrivateError::Ask)?.is_some() {
            self.run(&[Operation::Delete { name: name() }])?;
        }
        tap::create(&wanted.name, self.user, wanted.form).map_err(ApplyError::from)?;
        let bridge = wanted.bridge.clone().map(|bridge| Operation::Enslave {
            name: name(),
            bridge,
        });
        let up = Operation::SetUp { name: name() };
        self.run(&bridge.into_iter().chain([up]).collect::<Vec<_>>())
    }

    fn run(&self, operations: &[Operation]) -> Result<(), PrivateError> {
        let done = block_on(async |handle| {
            for operation in operations {
                apply::one(&handle, operation).await?;
            }
            Ok(())
        });
        done.map_err(PrivateError::Ask)?
    }
}

/// Why there is no network of one's own.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// The namespace is refused.
    #[error("Failed to enter a network namespace: be root, or a user who may make user namespaces")]
    Enter(#[source] io::Error),
    /// The kernel does not answer.
    #[error("Failed to ask the kernel for its interfaces")]
    Ask(#[source] io::Error),
    /// It does not make a tap.
    #[error(transparent)]
    Make(#[from] ApplyError),
}
