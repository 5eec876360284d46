//! Sockets between guest and host, from the guest's side.
//!
//! `probe vsock echo PORT` listens for ever and sends back what it gets, until the other side has
//! sent its last. `probe vsock send PORT BYTES` sends a pattern to the host, then its last, and
//! prints what comes back. `probe vsock short PORT COUNT` makes connections one after the other,
//! with a byte each way. `probe vsock break PORT COUNT` makes connections and leaves each in the
//! middle of what it sends.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, connect, listen, socket,
};
use rustix::net::{SocketFlags, accept_with};

/// The host's address.
const HOST: u32 = 2;

/// Any of the guest's addresses.
const ANY: u32 = u32::MAX;

/// Bytes in one piece.
const PIECE: usize = 64 << 10;

/// After so many bytes the pattern repeats: a prime, so that no piece looks like the one before.
const PERIOD: u64 = 65_521;

/// The byte at `place` of every transfer.
fn pattern(place: u64) -> u8 {
    (place % PERIOD).wrapping_mul(2_654_435_761).to_be_bytes()[4]
}

/// Runs one verb.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    match words {
        ["echo", port] => echo(port.parse()?),
        ["send", port, bytes] => send(port.parse()?, bytes.parse()?),
        ["short", port, count] => short(port.parse()?, count.parse()?),
        ["break", port, count] => leave(port.parse()?, count.parse()?),
        _ => anyhow::bail!("Expected: echo PORT, or send, short, break PORT NUMBER"),
    }
}

fn vsock() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None);
    socket.context("Cannot make a socket")
}

/// What reads, writes and shuts down streams of any family.
fn dial(port: u32) -> Result<UnixStream> {
    let socket = vsock()?;
    connect(socket.as_raw_fd(), &VsockAddr::new(HOST, port)).context("Cannot connect")?;
    Ok(socket.into())
}

fn echo(port: u32) -> Result<()> {
    let listener = vsock()?;
    bind(listener.as_raw_fd(), &VsockAddr::new(ANY, port)).context("Cannot bind")?;
    listen(&listener, Backlog::new(128)?).context("Cannot listen")?;
    println!("PROBE listens");
    loop {
        let stream = UnixStream::from(accept_with(&listener, SocketFlags::CLOEXEC)?);
        std::thread::spawn(move || {
            // Whoever hangs up gets nothing more.
            let _gone = send_back(stream);
        });
    }
}

fn send_back(mut stream: UnixStream) -> Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            count => stream.write_all(buffer.get(..count).unwrap_or_default())?,
        }
    }
    Ok(stream.shutdown(Shutdown::Write)?)
}

fn send(port: u32, bytes: u64) -> Result<()> {
    let mut stream = dial(port)?;
    let mut place = 0;
    while place < bytes {
        let end = bytes.min(place + PIECE as u64);
        let piece: Vec<u8> = (place..end).map(pattern).collect();
        stream.write_all(&piece).context("Cannot send")?;
        place = end;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("Cannot read")?;
    println!("PROBE {answer}");
    Ok(())
}

fn short(port: u32, count: u32) -> Result<()> {
    for number in 0..count {
        let mut stream = dial(port).with_context(|| format!("Connection {number}"))?;
        let sent = [pattern(number.into())];
        stream.write_all(&sent)?;
        stream.shutdown(Shutdown::Write)?;
        let mut back = Vec::new();
        stream.read_to_end(&mut back)?;
        ensure!(back == sent, "Connection {number} got {back:?}");
    }
    println!("PROBE {count} connections");
    Ok(())
}

fn leave(port: u32, count: u32) -> Result<()> {
    let piece = [0; PIECE];
    for number in 0..count {
        let mut stream = dial(port).with_context(|| format!("Connection {number}"))?;
        match stream.write(&piece) {
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                ) => {}
            Err(error) => return Err(error).context("Cannot send"),
        }
    }
    println!("PROBE {count} left");
    Ok(())
}
