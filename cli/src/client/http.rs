//! Reads one HTTP/1.1 answer. Only what our own server sends: a length or the end of the stream.

use std::io::{self, Read};

/// Largest answer accepted in bytes, head included: a description of a machine has a few hundred.
const MAX_ANSWER: u64 = 1 << 20;

/// Most header fields of an answer.
const MAX_HEADERS: usize = 32;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Status code.
    pub(super) status: u16,
    /// Body.
    pub(super) body: Vec<u8>,
}

/// Why bytes are not an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// Not HTTP.
    #[error("Expected an HTTP/1.1 answer")]
    Head(#[source] httparse::Error),
    /// It ends too early.
    #[error("The answer ends after {have} bytes")]
    Short {
        /// How much there is.
        have: usize,
    },
    /// It is far too long.
    #[error("The answer is longer than 1 MiB")]
    Long,
    /// It has an encoding that we never send.
    #[error("The answer has a transfer encoding or length that is not understood")]
    Encoding,
}

/// Reads an answer from `stream`, up to its end or its `Content-Length`.
///
/// # Errors
/// When reading fails; the inner error when what was read is no answer.
pub(super) fn read(stream: impl Read) -> io::Result<Result<Answer, Malformed>> {
    let mut stream = stream.take(MAX_ANSWER);
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match parse(&bytes) {
            Ok(Parsed::Complete(answer)) => return Ok(Ok(answer)),
            Ok(Parsed::Partial | Parsed::UntilEnd(_)) => {}
            Err(malformed) => return Ok(Err(malformed)),
        }
        let count = match stream.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    if stream.limit() == 0 {
        return Ok(Err(Malformed::Long));
    }
    Ok(match parse(&bytes) {
        Ok(Parsed::Complete(answer) | Parsed::UntilEnd(answer)) => Ok(answer),
        Ok(Parsed::Partial) => Err(Malformed::Short { have: bytes.len() }),
        Err(malformed) => Err(malformed),
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// More is needed.
    Partial,
    /// Everything is there.
    Complete(Answer),
    /// Everything is there if the stream ends here.
    UntilEnd(Answer),
}

fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(bytes).map_err(Malformed::Head)? else {
        return Ok(Parsed::Partial);
    };
    let status = head.code.unwrap_or_default();
    let body = bytes.get(start..).unwrap_or_default();
    let value = |name: &str| {
        let header = head
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        header.map(|header| std::str::from_utf8(header.value).unwrap_or_default().trim())
    };
    if value("transfer-encoding").is_some() {
        return Err(Malformed::Encoding);
    }
    // These never have a body (RFC 9112 §6.3).
    if status == 204 || status == 304 {
        return Ok(Parsed::Complete(Answer {
            status,
            body: Vec::new(),
        }));
    }
    match value("content-length").map(str::parse::<usize>) {
        None => Ok(Parsed::UntilEnd(Answer {
            status,
            body: body.to_owned(),
        })),
        Some(Err(_)) => Err(Malformed::Encoding),
        Some(Ok(length)) => Ok(match body.get(..length) {
            Some(body) => Parsed::Complete(Answer {
                status,
                body: body.to_owned(),
            }),
            None => Parsed::Partial,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out one byte at a time, then fails: a reader that waits for more than the answer
    /// would run into the failure, as it would into a timeout.
    struct Dribble<'a>(&'a [u8]);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else {
                return Err(io::ErrorKind::TimedOut.into());
            };
            buffer[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    #[test]
    fn an_answer_ends_with_its_length() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}trailing";
        let answer = read(Dribble(bytes)).unwrap().unwrap();
        assert_eq!(
            answer,
            Answer {
                status: 200,
                body: b"{}".to_vec()
            }
        );
    }

    #[test]
    fn an_answer_without_content_does_not_wait_for_the_end() {
        let answer = read(Dribble(b"HTTP/1.1 204 No Content\r\n\r\n"))
            .unwrap()
            .unwrap();
        assert_eq!(answer.status, 204);
    }

    #[test]
    fn an_answer_without_length_ends_with_the_stream() {
        let answer = read(&b"HTTP/1.1 409 Conflict\r\n\r\nno"[..])
            .unwrap()
            .unwrap();
        assert_eq!(
            answer,
            Answer {
                status: 409,
                body: b"no".to_vec()
            }
        );
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let read = |bytes: &[u8]| read(bytes).unwrap().unwrap_err();
        assert!(matches!(read(b"SSH-2.0-x\r\n"), Malformed::Head(_)));
        assert_eq!(read(b""), Malformed::Short { have: 0 });
        let short = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}";
        assert_eq!(read(short), Malformed::Short { have: short.len() });
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read(chunked), Malformed::Encoding);
        let negative = b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n";
        assert_eq!(read(negative), Malformed::Encoding);
        let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        endless.resize(2 << 20, b'x');
        assert_eq!(read(&endless), Malformed::Long);
    }
}
