//! `ready`: tells the host what systemd 254 and later tells it by itself.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{Shutdown, shutdown};

use crate::host::{HostError, dial};

/// Where the host listens for notifications.
const PORT: u32 = 5122;

/// Why the host was not told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadyError {
    /// It cannot be a unit.
    #[error("Target {target:?} is no unit's name, expected one such as multi-user.target")]
    Target {
        /// What was typed.
        target: String,
    },
    /// The host cannot be reached.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The connection broke.
    #[error("Failed to send the notification")]
    Send(#[source] io::Error),
}

/// Tells the host that the guest has reached `target`, and is ready with that.
///
/// # Errors
/// When the host is not there.
pub(crate) fn ready(target: &str) -> Result<(), ReadyError> {
    let message = message(target)?;
    let mut host = dial(PORT)?;
    host.write_all(message.as_bytes())
        .map_err(ReadyError::Send)?;
    shutdown(host.as_raw_fd(), Shutdown::Write).map_err(|error| ReadyError::Send(error.into()))?;
    // The host hangs up when it has read everything.
    match host.read(&mut [0]) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(ReadyError::Send(error)),
    }
}

/// As systemd words it, in the order in which it comes to pass.
fn message(target: &str) -> Result<String, ReadyError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if target.is_empty() || !target.chars().all(plain) {
        return Err(ReadyError::Target {
            target: target.to_owned(),
        });
    }
    Ok(format!("X_SYSTEMD_UNIT_ACTIVE={target}\nREADY=1\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_what_systemd_sends() {
        assert_eq!(
            message("multi-user.target").unwrap(),
            "X_SYSTEMD_UNIT_ACTIVE=multi-user.target\nREADY=1\n"
        );
        for target in ["", "a\nREADY=1", "a b"] {
            assert!(message(target).is_err(), "{target:?}");
        }
    }
}
