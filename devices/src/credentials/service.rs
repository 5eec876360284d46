//! The service: checks who asks, and words the answer.

use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

use super::MAX_CREDENTIAL_BYTES;
use super::name::Name;
use super::request::{BadRequest, Parser, Request};
use crate::vsock::{Answer, Peer, PrivilegedOnly, Service, Session};

/// Where credentials come from.
pub trait Store: Send {
    /// The names that can be asked for now.
    fn names(&self) -> Vec<Name>;

    /// The value of one as it is now, at most [`MAX_CREDENTIAL_BYTES`]. Called on the device's
    /// thread, which serves every other socket too: must not wait for long.
    ///
    /// # Errors
    /// When the guest does not get it; the store itself logs why.
    fn read(&mut self, name: &Name) -> Result<Zeroizing<Vec<u8>>, Refusal>;
}

/// Why the guest does not get a value. The text is all that it learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none of that name.
    #[error("no such credential")]
    Unknown,
    /// It is given out once, and was.
    #[error("given out already")]
    Spent,
    /// The host cannot read it.
    #[error("the host cannot read it")]
    Unreadable,
}

/// Answers requests out of a [`Store`].
pub struct CredentialService {
    store: Arc<Mutex<dyn Store>>,
    gate: PrivilegedOnly,
}

impl CredentialService {
    /// A service that asks `store`.
    pub fn new(store: impl Store + 'static) -> Self {
        Self {
            store: Arc::new(Mutex::new(store)),
            gate: PrivilegedOnly::new("credentials"),
        }
    }
}

impl Service for CredentialService {
    fn accept(&mut self, peer: Peer) -> Option<Box<dyn Session>> {
        if !self.gate.admits(peer) {
            return None;
        }
        Some(Box::new(Conversation {
            store: Arc::clone(&self.store),
            parser: Parser::default(),
        }))
    }
}

struct Conversation {
    /// Only the device's thread locks it.
    store: Arc<Mutex<dyn Store>>,
    parser: Parser,
}

impl Session for Conversation {
    fn receive(&mut self, bytes: &[u8]) -> Answer {
        match self.parser.feed(bytes) {
            None => Answer::NotYet,
            Some(Err(error)) => refused(&error.to_string()),
            Some(Ok(request)) => {
                let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
                answer(&mut *store, &request)
            }
        }
    }

    fn end(&mut self) -> Answer {
        refused(&BadRequest::Unfinished.to_string())
    }
}

fn answer(store: &mut dyn Store, request: &Request) -> Answer {
    let value = match request {
        Request::List => Ok(list(&store.names())),
        Request::Get(name) => store.read(name),
    };
    match value {
        Ok(value) if value.len() <= MAX_CREDENTIAL_BYTES || *request == Request::List => {
            granted(&value)
        }
        Ok(_) => refused(&Refusal::Unreadable.to_string()),
        Err(refusal) => refused(&refusal.to_string()),
    }
}

fn list(names: &[Name]) -> Zeroizing<Vec<u8>> {
    let lines = names.iter().map(|name| format!("{name}\n"));
    Zeroizing::new(lines.collect::<String>().into_bytes())
}

fn granted(value: &[u8]) -> Answer {
    let head = format!("OK {}\n", value.len());
    // Made in one piece: a vector that grows leaves copies of what it held.
    let mut answer = Zeroizing::new(Vec::with_capacity(head.len().saturating_add(value.len())));
    answer.extend_from_slice(head.as_bytes());
    answer.extend_from_slice(value);
    Answer::Last(answer)
}

fn refused(reason: &str) -> Answer {
    Answer::Last(Zeroizing::new(format!("ERR {reason}\n").into_bytes()))
}
