//! A connection to a port of the guest, through the slot's socket.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// Longest answer: `OK`, a space, ten digits and the line's end.
const LONGEST_ANSWER: usize = 14;

/// Connects to `port` of the guest. Waits for at most `patience`, when there is a limit: a guest
/// whose driver does not run (yet) neither accepts nor refuses.
///
/// # Errors
/// When nobody runs, listens or answers.
pub(crate) fn dial(
    socket: &Path,
    port: u32,
    patience: Option<Duration>,
) -> Result<UnixStream, DialError> {
    let mut stream = UnixStream::connect(socket).map_err(DialError::Connect)?;
    stream
        .set_read_timeout(patience)
        .map_err(DialError::Connect)?;
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .map_err(DialError::Talk)?;
    let mut answer = Vec::with_capacity(LONGEST_ANSWER);
    // A byte at a time: what follows the line belongs to whoever gets the connection.
    while answer.last() != Some(&b'\n') {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => return Err(DialError::Refused),
            Ok(_) if answer.len() < LONGEST_ANSWER => answer.extend(byte),
            Ok(_) => return Err(DialError::Refused),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(DialError::Silent);
            }
            Err(error) => return Err(DialError::Talk(error)),
        }
    }
    if !answer.starts_with(b"OK ") {
        return Err(DialError::Refused);
    }
    stream.set_read_timeout(None).map_err(DialError::Talk)?;
    Ok(stream)
}

/// Passes `stream` to the program that has the other end of `to`, in the way `ssh` expects it from
/// a proxy (`ProxyUseFdpass`): one byte, and the descriptor beside it.
///
/// # Errors
/// When `to` is no socket.
pub(crate) fn hand_over(stream: &UnixStream, to: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = [stream.as_fd().as_raw_fd()];
    let beside = [ControlMessage::ScmRights(&descriptors)];
    let bytes = [IoSlice::new(b"\0")];
    sendmsg::<()>(to.as_raw_fd(), &bytes, &beside, MsgFlags::empty(), None)?;
    Ok(())
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The socket is not there, or belongs to someone else.
    #[error("The slot's socket cannot be connected to")]
    Connect(#[source] io::Error),
    /// The connection broke.
    #[error("The slot closed the connection")]
    Talk(#[source] io::Error),
    /// Nobody listens.
    #[error("Nobody in the guest listens on that port")]
    Refused,
    /// The guest does not answer.
    #[error("The guest's driver of sockets does not answer")]
    Silent,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// Dials a slot that answers with `answer`; returns what it asked for, too.
    fn dialled(answer: &'static [u8]) -> (String, Result<UnixStream, DialError>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vsock.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let slot = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            BufReader::new(&stream).read_line(&mut asked).unwrap();
            stream.write_all(answer).unwrap();
            asked
        });
        let result = dial(&path, 22, None);
        (slot.join().unwrap(), result)
    }

    #[test]
    fn accepted_connection_starts_with_what_the_guest_sends() {
        let (asked, stream) = dialled(b"OK 1073741825\nSSH-2.0-x\r\n");
        assert_eq!(asked, "CONNECT 22\n");
        let mut text = String::new();
        stream.unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "SSH-2.0-x\r\n");
    }

    #[test]
    fn anything_else_is_a_refusal() {
        let answers: [&[u8]; 3] = [b"", b"NO\n", b"OK 123456789012345\n"];
        for answer in answers {
            let result = dialled(answer).1;
            assert!(matches!(result, Err(DialError::Refused)), "{answer:?}");
        }
    }

    #[test]
    fn slot_that_does_not_answer_is_told_from_one_that_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vsock.sock");
        let missing = dial(&path, 22, None).unwrap_err();
        assert!(matches!(missing, DialError::Connect(_)));
        let _listener = UnixListener::bind(&path).unwrap();
        let silent = dial(&path, 22, Some(Duration::from_millis(1))).unwrap_err();
        assert!(matches!(silent, DialError::Silent));
    }

    #[test]
    fn connection_is_handed_to_the_other_end_of_a_socket() {
        use nix::sys::socket::{ControlMessageOwned, recvmsg};
        use std::io::IoSliceMut;
        let (stream, _peer) = UnixStream::pair().unwrap();
        let (ours, ssh) = UnixStream::pair().unwrap();
        hand_over(&stream, ours.as_fd()).unwrap();
        let mut byte = [1];
        let mut bytes = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let message = recvmsg::<()>(
            ssh.as_raw_fd(),
            &mut bytes,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        );
        let beside: Vec<_> = message.unwrap().cmsgs().unwrap().collect();
        assert!(
            matches!(beside.as_slice(), [ControlMessageOwned::ScmRights(fds)] if fds.len() == 1)
        );
    }
}
