//! `creds serve`: answers systemd, which connected to the socket that a unit names in
//! `LoadCredential=`.
//!
//! systemd says which credential it wants by the abstract name it connects from,
//! `\0<random>/unit/<unit>/<credential>`, and takes what it reads until the end as the value
//! (systemd.exec(5)). It has no way to be told that there is none: an end without a byte is an
//! empty secret, with which the unit would start.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, AsRawFd as _};

use nix::errno::Errno;
use nix::sys::socket::{UnixAddr, getpeername};

use crate::request::{MAX_BYTES, RequestError, get};

/// Why systemd did not get a value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// Standard input is no Unix socket.
    #[error("Standard input is not a connection of systemd; start slotvmm-creds.socket instead")]
    NoSocket(#[source] Errno),
    /// Somebody else connected.
    #[error(
        "The client does not say which credential it wants, as systemd does by \
         LoadCredential=<name>:<socket>"
    )]
    NoName,
    /// The host does not give it.
    #[error("Credential {name} for {unit} was not fetched; the unit does not start")]
    Request {
        /// The credential.
        name: String,
        /// The unit it is for.
        unit: String,
        /// Why.
        #[source]
        source: RequestError,
    },
    /// systemd is gone.
    #[error("Failed to send the value")]
    Send(#[source] io::Error),
}

/// Answers the connection that is standard input.
///
/// # Errors
/// When it is none, or there is no value; the unit does not start then.
pub(crate) fn serve() -> Result<(), ServeError> {
    let stdin = io::stdin();
    let client = stdin.as_fd();
    let peer: UnixAddr = getpeername(client.as_raw_fd()).map_err(ServeError::NoSocket)?;
    let duplicate = client.try_clone_to_owned().map_err(ServeError::Send)?;
    let mut client = File::from(duplicate);
    let answer = wanted(peer.as_abstract().unwrap_or_default())
        .ok_or(ServeError::NoName)
        .and_then(|wanted| {
            get(wanted.name).map_err(|source| ServeError::Request {
                name: wanted.name.to_owned(),
                unit: wanted.unit.to_owned(),
                source,
            })
        });
    match answer {
        Ok(value) => client.write_all(&value).map_err(ServeError::Send),
        Err(error) => {
            spoil(&mut client);
            Err(error)
        }
    }
}

/// Sends more than systemd takes as a credential, so that it refuses to start the unit.
fn spoil(client: &mut impl Write) {
    // It hangs up as soon as it has seen too much.
    drop(client.write_all(&vec![0; MAX_BYTES.saturating_add(1)]));
}

/// What systemd wants.
#[derive(Debug, PartialEq, Eq)]
struct Wanted<'a> {
    unit: &'a str,
    name: &'a str,
}

/// Reads the name of a socket, without the NUL it starts with.
fn wanted(peer: &[u8]) -> Option<Wanted<'_>> {
    let text = str::from_utf8(peer).ok()?;
    let (_random, rest) = text.split_once("/unit/")?;
    let (unit, name) = rest.split_once('/')?;
    Some(Wanted { unit, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_the_socket_says_what_is_wanted() {
        let expected = Wanted {
            unit: "app@1.service",
            name: "api-key",
        };
        assert_eq!(wanted(b"3f9a0c/unit/app@1.service/api-key"), Some(expected));
        for other in [
            &b""[..],
            b"3f/unit/app.service",
            b"3f/home/x/y",
            b"\xff/unit/a/b",
        ] {
            assert_eq!(wanted(other), None, "{other:?}");
        }
    }

    #[test]
    fn refusal_is_longer_than_any_credential() {
        let mut sent = Vec::new();
        spoil(&mut sent);
        assert_eq!(sent.len(), MAX_BYTES + 1);
    }
}
