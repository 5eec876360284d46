//! Settings of the kernel for one interface, below `/proc/sys/net/ipv4/conf`.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::slot::InterfaceName;

/// A setting that is on or off. `forwarding` of an interface decides on packets that come in by
/// it, so the host's other interfaces need not become those of a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// Packets that come in by the interface may go out by another.
    Forwarding,
    /// Loopback addresses may be routed by the interface: replies of published ports and
    /// redirections to a proxy on the host need it.
    RouteLocalnet,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forwarding => "forwarding",
            Self::RouteLocalnet => "route_localnet",
        })
    }
}

/// A setting of one interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sysctl {
    /// The interface.
    pub interface: InterfaceName,
    /// The setting.
    pub setting: Setting,
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.setting, self.interface)
    }
}

impl Sysctl {
    /// Whether it is on; nothing when there is no such interface.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn read(&self) -> Result<Option<bool>, SysctlError> {
        match std::fs::read_to_string(self.path()) {
            Ok(text) => Ok(Some(text.trim() != "0")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed("read", source)),
        }
    }

    /// Switches it on or off; an interface that is gone needs neither.
    ///
    /// # Errors
    /// When the kernel refuses, usually for lack of `CAP_NET_ADMIN` or because `/proc/sys` is
    /// read-only.
    pub(crate) fn write(&self, on: bool) -> Result<(), SysctlError> {
        let value = if on { "1" } else { "0" };
        match std::fs::write(self.path(), value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            written => written.map_err(|source| self.failed("set", source)),
        }
    }

    /// `/proc` shows the network namespace of the thread that asks.
    fn path(&self) -> PathBuf {
        PathBuf::from("/proc/sys/net/ipv4/conf")
            .join(self.interface.as_str())
            .join(self.setting.to_string())
    }

    fn failed(&self, action: &'static str, source: io::Error) -> SysctlError {
        SysctlError {
            action,
            sysctl: self.clone(),
            source,
        }
    }
}

/// Why a setting was not read or set.
#[derive(Debug, thiserror::Error)]
#[error(
    "Failed to {action} {sysctl}: this needs CAP_NET_ADMIN, and /proc/sys/net/ipv4/conf writable"
)]
pub struct SysctlError {
    action: &'static str,
    sysctl: Sysctl,
    #[source]
    source: io::Error,
}
