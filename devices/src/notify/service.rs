//! The service: who may speak, and for how long.

use std::sync::Arc;

use super::message::{Parser, Report};
use crate::vsock::{Answer, Peer, PrivilegedOnly, Service, Session};

/// Most bytes of one connection. Nobody has that much to say; whoever does is hung up on.
pub const MAX_CONNECTION_BYTES: usize = 64 << 10;

/// Hears what guests report. Called on the device's thread: must not block, and must bound what
/// it keeps, since a guest reports as often as it likes.
pub trait Listener: Send + Sync {
    /// Takes one report.
    fn hear(&self, report: Report);
}

/// Answers on [`PORT`](super::PORT).
pub struct NotifyService {
    listener: Arc<dyn Listener>,
    gate: PrivilegedOnly,
}

impl NotifyService {
    /// A service that tells `listener`.
    pub fn new(listener: Arc<dyn Listener>) -> Self {
        Self {
            listener,
            gate: PrivilegedOnly::new("readiness"),
        }
    }
}

impl Service for NotifyService {
    fn accept(&mut self, peer: Peer) -> Option<Box<dyn Session>> {
        // systemd binds a privileged port. Anybody else could say that the guest is ready.
        if !self.gate.admits(peer) {
            return None;
        }
        Some(Box::new(Conversation {
            listener: Arc::clone(&self.listener),
            parser: Parser::default(),
            left: MAX_CONNECTION_BYTES,
        }))
    }
}

struct Conversation {
    listener: Arc<dyn Listener>,
    parser: Parser,
    /// Bytes that may still come.
    left: usize,
}

impl Session for Conversation {
    fn receive(&mut self, bytes: &[u8]) -> Answer {
        let Some(left) = self.left.checked_sub(bytes.len()) else {
            return Answer::end();
        };
        self.left = left;
        self.parser.feed(bytes, |report| self.listener.hear(report));
        Answer::NotYet
    }

    fn end(&mut self) -> Answer {
        self.parser.end(|report| self.listener.hear(report));
        Answer::end()
    }
}
