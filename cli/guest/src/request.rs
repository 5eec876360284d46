//! Requests for credentials. The host is trusted with what they are, not with where they go:
//! names are checked before they become paths, and lengths before anything is allocated.

use std::io::{self, Read, Write};

use zeroize::Zeroizing;

use crate::host::{HostError, dial};

/// Where the host has credentials.
const PORT: u32 = 5121;

/// Most bytes of a value, and of a list of names.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// Longest first line of an answer.
const MAX_HEAD: usize = 256;

/// Longest name: that of a file.
const MAX_NAME: usize = 255;

/// Why a request has no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The host cannot be reached.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The connection broke.
    #[error("Failed to talk to the host")]
    Talk(#[source] io::Error),
    /// The host says no.
    #[error("The host refused: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// The host says something else.
    #[error("The host's answer is not one: expected OK with a length up to 1048576, or ERR")]
    Malformed,
    /// A name that no file can have.
    #[error("The host offers a credential named {name:?}, which no file can be called")]
    Name {
        /// The name.
        name: String,
    },
}

/// The names of what the host has.
///
/// # Errors
/// When the host does not tell.
pub(crate) fn list() -> Result<Vec<String>, RequestError> {
    names(&ask(dial(PORT)?, "LIST")?)
}

/// The value of one.
///
/// # Errors
/// When the host does not give it.
pub(crate) fn get(name: &str) -> Result<Zeroizing<Vec<u8>>, RequestError> {
    check_name(name)?;
    ask(dial(PORT)?, &format!("GET {name}"))
}

fn names(list: &[u8]) -> Result<Vec<String>, RequestError> {
    let text = str::from_utf8(list).map_err(|_| RequestError::Malformed)?;
    let name = |line: &str| check_name(line).map(|()| line.to_owned());
    text.lines().map(name).collect()
}

/// A name goes into a request and becomes that of a file.
fn check_name(name: &str) -> Result<(), RequestError> {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'/' && byte != b':';
    let fits = (1..=MAX_NAME).contains(&name.len()) && name != "." && name != "..";
    if fits && name.bytes().all(plain) {
        return Ok(());
    }
    Err(RequestError::Name {
        name: name.to_owned(),
    })
}

fn ask(mut host: impl Read + Write, request: &str) -> Result<Zeroizing<Vec<u8>>, RequestError> {
    host.write_all(format!("{request}\n").as_bytes())
        .map_err(RequestError::Talk)?;
    let head = head(&mut host)?;
    if let Some(reason) = head.strip_prefix("ERR ") {
        return Err(RequestError::Refused {
            reason: reason.to_owned(),
        });
    }
    let length: Option<usize> = head.strip_prefix("OK ").and_then(|text| text.parse().ok());
    let length = length
        .filter(|length| *length <= MAX_BYTES)
        .ok_or(RequestError::Malformed)?;
    let mut value = Zeroizing::new(vec![0; length]);
    host.read_exact(&mut value).map_err(RequestError::Talk)?;
    // Until the host hangs up too, the port stays in use.
    match host.read(&mut [0]) {
        Ok(0) => Ok(value),
        Ok(_) => Err(RequestError::Malformed),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(value),
        Err(error) => Err(RequestError::Talk(error)),
    }
}

/// Reads the first line, byte by byte: what follows may be secret, and belongs into one place.
fn head(host: &mut impl Read) -> Result<String, RequestError> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MAX_HEAD {
        host.read_exact(&mut byte).map_err(RequestError::Talk)?;
        match byte {
            [b'\n'] => return String::from_utf8(line).map_err(|_| RequestError::Malformed),
            [other] => line.push(other),
        }
    }
    Err(RequestError::Malformed)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A host that answers with these bytes whatever it is asked.
    struct Scripted {
        answer: Cursor<Vec<u8>>,
        asked: Vec<u8>,
    }

    impl Read for Scripted {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            // In small pieces, as a stream may come.
            let length = room.len().min(3);
            self.answer.read(&mut room[..length])
        }
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.asked.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answered(answer: &[u8]) -> Result<Vec<u8>, RequestError> {
        let host = Scripted {
            answer: Cursor::new(answer.to_vec()),
            asked: Vec::new(),
        };
        ask(host, "GET key").map(|value| value.to_vec())
    }

    #[test]
    fn value_is_taken_exactly() {
        assert_eq!(answered(b"OK 0\n").unwrap(), b"");
        assert_eq!(answered(b"OK 5\n\0\xff\n\n!").unwrap(), b"\0\xff\n\n!");
    }

    #[test]
    fn refusal_is_passed_on() {
        let error = answered(b"ERR no such credential\n").unwrap_err();
        assert_eq!(error.to_string(), "The host refused: no such credential");
    }

    #[test]
    fn other_answers_are_errors() {
        let long = [b'x'; 300];
        for answer in [
            &b"OK x\n"[..],
            b"OK 1048577\n",
            b"OK -1\n",
            b"HELLO\n",
            b"OK 1\nab",
            b"OK 2\na",
            b"OK 2",
            b"\xff\n",
            &long,
        ] {
            assert!(answered(answer).is_err(), "{answer:?}");
        }
    }

    #[test]
    fn names_that_no_file_can_have_are_refused() {
        assert_eq!(names(b"").unwrap(), [""; 0]);
        assert_eq!(
            names(b"HOST-A\nwith blank\n").unwrap(),
            ["HOST-A", "with blank"]
        );
        for list in [
            &b"../../etc/passwd\n"[..],
            b"..\n",
            b"\n",
            b"a\0b\n",
            b"\xff\n",
        ] {
            assert!(names(list).is_err(), "{list:?}");
        }
        assert!(get("a/b").is_err());
    }
}
