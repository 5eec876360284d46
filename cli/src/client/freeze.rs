//! Has a guest freeze its file systems, by the program `slotvmm-guest` that runs in it.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use hostnet::slot::SlotName;
use nix::sys::signal::Signal;

use super::snapshot::Waited;
use super::{Client, Interrupts};
use crate::ssh::{DialError, dial};

/// Where the guest listens.
const PORT: u32 = 5123;

/// How long a guest may take to accept the connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it may take to freeze: what its programs have written goes to the disk first.
const FREEZING: Duration = Duration::from_secs(60);

/// How long it may take to thaw, or to say that it did.
const THAWING: Duration = Duration::from_secs(10);

/// For how long a guest keeps its file systems frozen when it hears nothing more, in seconds. A
/// snapshot's pause is over long before.
const LIMIT_SECONDS: u32 = 30;

/// Longest answer.
const MAX_LINE: usize = 1024;

/// Why a guest's file systems were not frozen for a snapshot. Nothing stays frozen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FreezeError {
    /// There is no connection.
    #[error(
        "The guest of {slot} cannot be asked to freeze its file systems: install slotvmm-guest in it and \
         enable slotvmm-freeze.socket, see docs/states.md, or leave --fsfreeze out"
    )]
    Dial {
        /// The slot.
        slot: SlotName,
        /// Why.
        #[source]
        source: DialError,
    },
    /// The guest says why.
    #[error("The guest of {slot} did not freeze its file systems: {reason}")]
    Refused {
        /// The slot.
        slot: SlotName,
        /// Why.
        reason: String,
    },
    /// It does not answer.
    #[error("The guest of {slot} did not {action} its file systems within {} s", limit.as_secs())]
    Silent {
        /// The slot.
        slot: SlotName,
        /// What it was asked.
        action: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The connection broke, or something else speaks there.
    #[error("Failed to speak to what listens on port 5123 of {slot}: is it slotvmm-guest?")]
    Talk {
        /// The slot.
        slot: SlotName,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// It thawed before the content was decided.
    #[error("The guest of {slot} thawed before the snapshot was taken: {reason}")]
    Early {
        /// The slot.
        slot: SlotName,
        /// What it says.
        reason: String,
    },
    /// A signal came.
    #[error("The snapshot was given up ({signal}); the slot runs on")]
    Interrupted {
        /// The signal.
        signal: Signal,
    },
}

/// A guest whose file systems are frozen. Dropped, they are thawed: it notices that nobody is there.
pub(crate) struct Frozen {
    slot: SlotName,
    guest: UnixStream,
}

impl Client {
    /// Has the slot's guest freeze its file systems.
    ///
    /// # Errors
    /// When there is nobody who does it, or not everything was frozen.
    pub(crate) fn freeze(&self, interrupts: &Interrupts) -> Result<Frozen, FreezeError> {
        let socket = self.socket.with_file_name("vsock.sock");
        Frozen::freeze(&self.slot, &socket, interrupts)
    }
}

impl Frozen {
    /// Freezes the guest behind `socket`, the slot's way to ports of its guest.
    ///
    /// # Errors
    /// When there is nobody who does it, or not everything was frozen.
    fn freeze(
        slot: &SlotName,
        socket: &Path,
        interrupts: &Interrupts,
    ) -> Result<Self, FreezeError> {
        let guest = dial(socket, PORT, Some(PATIENCE)).map_err(|source| FreezeError::Dial {
            slot: slot.clone(),
            source,
        })?;
        let mut frozen = Self {
            slot: slot.clone(),
            guest,
        };
        frozen.say(&format!("FREEZE {LIMIT_SECONDS}\n"))?;
        let answer = frozen.hear(("freeze", FREEZING), interrupts)?;
        if answer.starts_with("OK ") {
            return Ok(frozen);
        }
        Err(FreezeError::Refused {
            slot: frozen.slot,
            reason: reason(&answer),
        })
    }

    /// Thaws it.
    ///
    /// # Errors
    /// When not everything was frozen until now. It is not any more, in any case.
    pub(crate) fn thaw(mut self, interrupts: &Interrupts) -> Result<(), FreezeError> {
        self.say("THAW\n")?;
        let answer = self.hear(("thaw", THAWING), interrupts)?;
        if answer == "OK" {
            return Ok(());
        }
        Err(FreezeError::Early {
            slot: self.slot,
            reason: reason(&answer),
        })
    }

    fn say(&mut self, line: &str) -> Result<(), FreezeError> {
        let said = self.guest.write_all(line.as_bytes());
        said.map_err(|source| self.broken(source))
    }

    fn hear(
        &mut self,
        (action, limit): (&'static str, Duration),
        interrupts: &Interrupts,
    ) -> Result<String, FreezeError> {
        let mut line = Vec::new();
        while line.len() < MAX_LINE {
            match interrupts.wait(&self.guest, limit) {
                Ok(Waited::Readable) => {}
                Ok(Waited::Signal(signal)) => return Err(FreezeError::Interrupted { signal }),
                Ok(Waited::Timeout) => {
                    let slot = self.slot.clone();
                    return Err(FreezeError::Silent {
                        slot,
                        action,
                        limit,
                    });
                }
                Err(source) => return Err(self.broken(source)),
            }
            let mut byte = [0];
            match self.guest.read(&mut byte) {
                Ok(0) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) if byte == *b"\n" => return Ok(String::from_utf8_lossy(&line).into_owned()),
                Ok(_) => line.extend(byte),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.broken(source)),
            }
        }
        Err(self.broken(io::ErrorKind::InvalidData.into()))
    }

    fn broken(&self, source: io::Error) -> FreezeError {
        FreezeError::Talk {
            slot: self.slot.clone(),
            source,
        }
    }
}

/// What a guest says, which it may choose: no control characters of it reach a terminal.
fn reason(answer: &str) -> String {
    let reason = answer.strip_prefix("ERR ").unwrap_or(answer);
    reason.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// Freezes and thaws a guest that answers with these lines.
    fn freeze(answers: [&'static str; 2]) -> Result<(), FreezeError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vsock.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let guest = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            assert_eq!(lines.next().unwrap().unwrap(), "CONNECT 5123");
            stream.write_all(b"OK 1073741825\n").unwrap();
            let expected = ["FREEZE 30", "THAW"];
            for (answer, expected) in answers.into_iter().zip(expected) {
                match lines.next() {
                    Some(line) => assert_eq!(line.unwrap(), expected),
                    None => return,
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let interrupts = Interrupts::block().unwrap();
        let slot = "slot1".parse().unwrap();
        let result =
            Frozen::freeze(&slot, &path, &interrupts).and_then(|frozen| frozen.thaw(&interrupts));
        guest.join().unwrap();
        result
    }

    #[test]
    fn a_guest_that_was_frozen_until_it_is_thawed_is_believed() {
        freeze(["OK 2 0\n", "OK\n"]).unwrap();
    }

    #[test]
    fn guests_that_do_otherwise_say_why() {
        let refused = freeze(["ERR Failed to freeze \x1b[2J/home\n", ""]).unwrap_err();
        assert!(matches!(refused, FreezeError::Refused { .. }));
        assert!(refused.to_string().ends_with("Failed to freeze [2J/home"));
        let early = freeze(["OK 1 0\n", "ERR The host did not thaw\n"]).unwrap_err();
        assert!(matches!(early, FreezeError::Early { .. }));
        let gone = freeze(["OK 1 0\n", "O"]).unwrap_err();
        assert!(matches!(gone, FreezeError::Talk { .. }));
    }

    #[test]
    fn a_guest_without_the_program_is_told_from_a_broken_one() {
        let dir = tempfile::tempdir().unwrap();
        let interrupts = Interrupts::block().unwrap();
        let slot = "slot1".parse().unwrap();
        let absent = Frozen::freeze(&slot, &dir.path().join("vsock.sock"), &interrupts);
        let absent = absent.err().unwrap().to_string();
        assert!(absent.contains("slotvmm-freeze.socket"), "{absent}");
    }
}
