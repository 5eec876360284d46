//! What the guest asks for, read byte by byte.

use super::name::{MAX_NAME_BYTES, Name};

/// Longest request with its line break. Without the limit a guest could make this process keep
/// whatever it sends.
const MAX_REQUEST_BYTES: usize = "GET \n".len() + MAX_NAME_BYTES;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The names of what there is.
    List,
    /// The value of one.
    Get(Name),
}

/// Why bytes are no request; the text is for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// It goes on where it should have ended.
    #[error("request too long")]
    TooLong,
    /// The guest stopped before the end of the line.
    #[error("request ends without a line break")]
    Unfinished,
    /// Neither `LIST` nor `GET`.
    #[error("unknown request, expected LIST or GET and a name")]
    Unknown,
    /// No credential can have that name.
    #[error("name not valid")]
    Name,
}

/// Collects a request out of pieces of any size.
#[derive(Debug, Default)]
pub struct Parser(Vec<u8>);

impl Parser {
    /// Takes a piece. Returns the request once its line is complete; what follows in the piece is
    /// not looked at.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<Result<Request, BadRequest>> {
        for byte in bytes {
            if *byte == b'\n' {
                return Some(parse(&self.0));
            }
            self.0.push(*byte);
            if self.0.len() >= MAX_REQUEST_BYTES {
                return Some(Err(BadRequest::TooLong));
            }
        }
        None
    }
}

fn parse(line: &[u8]) -> Result<Request, BadRequest> {
    if line == b"LIST" {
        return Ok(Request::List);
    }
    let name = line.strip_prefix(b"GET ").ok_or(BadRequest::Unknown)?;
    let name = str::from_utf8(name).map_err(|_| BadRequest::Name)?;
    name.parse().map(Request::Get).map_err(|_| BadRequest::Name)
}
