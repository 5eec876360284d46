//! The host's end of a connection: a Unix socket, or a session of a service.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use vm_memory::{Bytes, ReadVolatile, VolatileMemoryError, VolatileSlice};
use zeroize::Zeroizing;

use super::service::{Answer, Session};

/// Who a connection leads to.
pub(super) enum Endpoint {
    /// A program of the host.
    Socket(UnixStream),
    /// A service of this process.
    Session(Conversation),
}

/// A session and what it has said so far.
pub(super) struct Conversation {
    session: Box<dyn Session>,
    /// Its answer and how much of that the guest has.
    answer: Option<(Zeroizing<Vec<u8>>, usize)>,
}

/// What the host's end has for the guest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// So many bytes, at least one.
    Bytes(u32),
    /// Nothing now.
    Nothing,
    /// Nothing ever again.
    End,
}

/// What the host's end did with bytes of the guest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// Took so many.
    Bytes(usize),
    /// Has no room now.
    Full,
    /// Takes none any more.
    Broken,
}

impl Endpoint {
    pub(super) fn session(session: Box<dyn Session>) -> Self {
        Self::Session(Conversation {
            session,
            answer: None,
        })
    }

    /// Moves bytes for the guest into `room`, which is not empty.
    pub(super) fn take(&mut self, room: &VolatileSlice<'_>) -> Taken {
        match self {
            Self::Socket(stream) => receive(stream, room),
            Self::Session(conversation) => conversation.take(room),
        }
    }

    /// Offers bytes of the guest.
    pub(super) fn give(&mut self, bytes: &[u8]) -> Given {
        match self {
            Self::Socket(stream) => loop {
                return match stream.write(bytes) {
                    Ok(0) => Given::Full,
                    Ok(written) => Given::Bytes(written),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Given::Full,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(_) => Given::Broken,
                };
            },
            Self::Session(conversation) => {
                if conversation.answer.is_none() {
                    let answer = conversation.session.receive(bytes);
                    conversation.note(answer);
                }
                Given::Bytes(bytes.len())
            }
        }
    }

    /// The guest sends no more, and everything it sent was given.
    pub(super) fn end_of_guest(&mut self) {
        match self {
            // Fails when the other side is gone, which is noticed when reading.
            Self::Socket(stream) => drop(stream.shutdown(Shutdown::Write)),
            Self::Session(conversation) => {
                if conversation.answer.is_none() {
                    let answer = match conversation.session.end() {
                        Answer::NotYet => Answer::end(),
                        answer => answer,
                    };
                    conversation.note(answer);
                }
            }
        }
    }

    /// The guest takes no more.
    pub(super) fn guest_is_deaf(&mut self) {
        if let Self::Socket(stream) = self {
            // Fails when the other side is gone, which is as good.
            drop(stream.shutdown(Shutdown::Read));
        }
    }

    /// Whether the end of what is taken is the end of the whole connection.
    pub(super) fn ends_altogether(&self) -> bool {
        matches!(self, Self::Session(_))
    }
}

impl Conversation {
    fn note(&mut self, answer: Answer) {
        if let Answer::Last(bytes) = answer {
            self.answer = Some((bytes, 0));
        }
    }

    fn take(&mut self, room: &VolatileSlice<'_>) -> Taken {
        let Some((bytes, taken)) = &mut self.answer else {
            return Taken::Nothing;
        };
        let rest = bytes.get(*taken..).unwrap_or_default();
        match room.write(rest, 0) {
            Ok(written) if written > 0 => {
                *taken = taken.saturating_add(written);
                Taken::Bytes(u32::try_from(written).unwrap_or(u32::MAX))
            }
            // Nothing is left, since the room is not empty.
            _ => Taken::End,
        }
    }
}

/// Reads straight into guest memory.
fn receive(stream: &UnixStream, room: &VolatileSlice<'_>) -> Taken {
    let mut stream = stream;
    let mut room = *room;
    loop {
        return match stream.read_volatile(&mut room) {
            Ok(0) => Taken::End,
            Ok(read) => Taken::Bytes(u32::try_from(read).unwrap_or(u32::MAX)),
            Err(VolatileMemoryError::IOError(error)) => match error.kind() {
                io::ErrorKind::WouldBlock => Taken::Nothing,
                io::ErrorKind::Interrupted => continue,
                _ => Taken::End,
            },
            Err(_) => Taken::End,
        };
    }
}
