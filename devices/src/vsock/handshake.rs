//! What a client of the listener says first: `CONNECT <port>\n`.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;

/// Longest line: the word, a space, ten digits and the newline, and a carriage return.
const MAX_LINE: usize = 20;

/// A client that has not said yet where it wants to go.
#[derive(Debug)]
pub(super) struct Handshake {
    stream: UnixStream,
    line: Vec<u8>,
}

/// What became of a client.
#[derive(Debug)]
pub(super) enum Said {
    /// It has more to say.
    Part(Handshake),
    /// It wants to go to this port; what it says from here on is for the guest.
    Port(UnixStream, u32),
    /// It is gone, or speaks something else.
    Nothing,
}

impl Handshake {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            line: Vec::with_capacity(MAX_LINE),
        }
    }

    /// Reads what there is of the line, and not a byte beyond it.
    pub(super) fn listen(mut self) -> Said {
        let mut byte = [0];
        loop {
            match self.stream.read(&mut byte) {
                Ok(1) if byte == *b"\n" => {
                    return match port(&self.line) {
                        Some(port) => Said::Port(self.stream, port),
                        None => Said::Nothing,
                    };
                }
                Ok(1) if self.line.len() < MAX_LINE => self.line.extend(byte),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Said::Part(self),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return Said::Nothing,
            }
        }
    }
}

/// The port in `CONNECT <port>`; the word in any case, as the other programs take it.
fn port(line: &[u8]) -> Option<u32> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let word = words.next()?;
    let port = words.next()?.parse().ok()?;
    (word.eq_ignore_ascii_case("connect") && words.next().is_none()).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_port_is_a_port() {
        let cases: [(&[u8], Option<u32>); 9] = [
            (b"CONNECT 22", Some(22)),
            (b"connect 4294967295", Some(u32::MAX)),
            (b"CONNECT 22\r", Some(22)),
            (b"CONNECT 4294967296", None),
            (b"CONNECT -1", None),
            (b"CONNECT", None),
            (b"CONNECT 22 23", None),
            (b"GET / HTTP/1.1", None),
            (b"CONNECT \xff", None),
        ];
        for (line, expected) in cases {
            assert_eq!(port(line), expected, "{:?}", String::from_utf8_lossy(line));
        }
    }
}
