//! Services of this process, reached from the guest as ports of the host: no socket, no thread.

use std::fmt;

use zeroize::Zeroizing;

use super::Cid;
use crate::log_limit::LogLimit;

/// First port that any program of a Linux guest may connect from. Below, it needs
/// `CAP_NET_BIND_SERVICE`.
const FIRST_UNPRIVILEGED_PORT: u32 = 1024;

/// Who connects to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The guest's address.
    pub cid: Cid,
    /// The port its program connects from. Linux lets only privileged programs have one below
    /// 1024.
    pub port: u32,
}

/// What answers on a port.
pub trait Service: Send {
    /// Begins a conversation, or refuses it: the guest's program sees a reset then. Must not block.
    fn accept(&mut self, peer: Peer) -> Option<Box<dyn Session>>;
}

/// Admits only programs of the guest that Linux lets have a port below 1024, for services that
/// believe or tell whoever asks.
pub(crate) struct PrivilegedOnly {
    service: &'static str,
    intruders: LogLimit,
}

impl PrivilegedOnly {
    /// The gate of `service`, as logs call it.
    pub(crate) const fn new(service: &'static str) -> Self {
        Self {
            service,
            intruders: LogLimit::new(),
        }
    }

    /// Whether `peer` may go on. Logs who may not, within limits.
    pub(crate) fn admits(&self, peer: Peer) -> bool {
        let admitted = peer.port < FIRST_UNPRIVILEGED_PORT;
        if !admitted && let Some(count) = self.intruders.next() {
            let (service, port) = (self.service, peer.port);
            tracing::warn!(
                service,
                port,
                count,
                "Refused a guest program without privileges"
            );
        }
        admitted
    }
}

/// One conversation: the guest speaks until there is an answer, gets it, and that is the end.
pub trait Session: Send {
    /// Takes bytes that the guest sent, in pieces of any size. Must not block. Not called again
    /// after an answer.
    fn receive(&mut self, bytes: &[u8]) -> Answer;

    /// The guest will send nothing more. An answer of [`Answer::NotYet`] counts as an empty one.
    fn end(&mut self) -> Answer;
}

/// What a session has to say.
pub enum Answer {
    /// Nothing yet; it wants to hear more.
    NotYet,
    /// These bytes, and then the end. They are erased from memory once they are sent.
    Last(Zeroizing<Vec<u8>>),
}

impl Answer {
    /// The end without a word.
    pub fn end() -> Self {
        Self::Last(Zeroizing::default())
    }
}

impl fmt::Debug for Answer {
    /// Without the bytes: they may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYet => f.write_str("NotYet"),
            Self::Last(bytes) => write!(f, "Last({} bytes)", bytes.len()),
        }
    }
}
